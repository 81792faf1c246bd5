"""Texts from prompts with images: continued, and scored."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.models.checks import check_ids, check_visual
from eegkd.models.decoder import Decoder
from eegkd.models.generate import Decoding, Generated, apply_decoder, generate
from eegkd.models.llava import Llava, LlavaConfig
from eegkd.models.score import score_continuations
from eegkd.ops.masks import boolean_mask
from eegkd.typing import Array, Bool, Float, Int, Key, Mask, PyTree


def generate_text(
    llava: Llava,
    params: PyTree,
    ids: Int[Array, "b l"],
    mask: Mask[Array, "b l"] | None = None,
    *,
    inputs: Mapping[str, Array],
    adapters: PyTree = None,
    alpha: float | None = None,
    decoding: Decoding,
    key: Key[Array, ""] | None = None,
) -> Generated:
    """Continues prompts with images.

    Args:
        llava: The model.
        params: Parameters of the model.
        ids: Packed prompts; padding may be on any side.
        mask: True where there is a token; None is everywhere.
        inputs: Images, as keywords of `Llava.embed`.
        adapters: Adapters of the whole model.
        alpha: Alpha of the adapters' config; needed with them.
        decoding: Choice of tokens, and end of a row.
        key: Random key, for drawing.

    Raises:
        InputError: As in `generate`, and if texts and images do not fit each other.
    """
    given = _language(llava, params, ids, mask, inputs, adapters, alpha)
    decoder = Decoder(llava.cfg.language)
    return generate(decoder, **given, decoding=decoding, key=key)


def score_text(
    llava: Llava,
    params: PyTree,
    ids: Int[Array, "b l"],
    mask: Mask[Array, "b l"] | None = None,
    *,
    inputs: Mapping[str, Array],
    adapters: PyTree = None,
    alpha: float | None = None,
    **options: Any,
) -> Float[Array, "b k"]:
    """Computes the log-likelihood of continuations after prompts with images.

    `options` are those of `score_continuations`: `continuations`, `continuation_mask`.
    The other arguments are those of `generate_text`.

    Raises:
        InputError: See `generate_text`.
    """
    given = _language(llava, params, ids, mask, inputs, adapters, alpha)
    return score_continuations(Decoder(llava.cfg.language), **given, **options)


def _language(
    llava: Llava,
    params: PyTree,
    ids: Array,
    mask: Array | None,
    inputs: Mapping[str, Array],
    adapters: PyTree,
    alpha: float | None,
) -> dict[str, Any]:
    """Returns the decoder's parameters and adapters, and its embeddings."""
    inputs = dict(inputs)
    read = boolean_mask(mask, ids.shape)
    there, at = _visual_mask(llava.cfg, inputs), inputs.get("visual_at")
    if there is not None and at is not None:
        check_visual(at, there)
        inputs["visual_mask"] = there
        read &= jnp.asarray(at) < 0
    check_ids(ids, read, llava.cfg.language.vocab_size)
    return {
        "params": params["language"],
        "adapters": None if adapters is None else adapters.get("language"),
        "alpha": alpha,
        "embeds": _embed(llava, params, ids, inputs, adapters, alpha=alpha),
        "mask": mask,
    }


def _visual_mask(
    cfg: LlavaConfig, inputs: Mapping[str, Array]
) -> Bool[Array, "b v"] | None:
    """Returns which visual tokens there are; None where there are no images."""
    if "visual" in inputs or "visual_index" in inputs:
        shape = inputs["visual" if "visual" in inputs else "visual_index"].shape[:2]
    elif "pixels" in inputs:
        b, p = inputs["pixels"].shape[:2]
        shape = (b, p * cfg.vision.num_patches)
    else:
        return None
    return boolean_mask(inputs.get("visual_mask"), shape, "visual_mask")


@functools.partial(jax.jit, static_argnums=0, static_argnames="alpha")
def _embed(
    llava: Llava,
    params: PyTree,
    ids: Array,
    inputs: dict[str, Array],
    adapters: PyTree,
    *,
    alpha: float | None,
) -> Array:
    given: dict[str, Any] = {"ids": ids, "method": "embed", **inputs}
    return apply_decoder(llava, params, adapters, alpha, **given)["embeds"]
