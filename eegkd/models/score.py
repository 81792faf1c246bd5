"""Likelihood of given texts after a prompt, such as labels of a class."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.errors import InputError
from eegkd.models.checks import check_ids, check_prompts, refuse_nan
from eegkd.models.decoder import Decoder
from eegkd.models.generate import apply_decoder, log_likelihood, prefill
from eegkd.ops.masks import boolean_mask
from eegkd.ops.rotary import token_positions
from eegkd.typing import Array, Float, Int, Mask, PyTree


def score_continuations(
    decoder: Decoder,
    params: PyTree,
    ids: Int[Array, "b l"] | None = None,
    mask: Mask[Array, "b l"] | None = None,
    *,
    continuations: Int[Array, "*b k n"],
    continuation_mask: Mask[Array, "*b k n"] | None = None,
    embeds: Float[Array, "b l d"] | None = None,
    adapters: PyTree = None,
    alpha: float | None = None,
) -> Float[Array, "b k"]:
    """Computes `log p(continuation | prompt)`, the sum over the continuation's tokens.

    A prompt is read once: all its continuations are one row behind it, in which none
    sees another. Continuations of one token, such as letters of choices, are not read.

    Args:
        decoder: The model.
        params: Parameters of the model.
        ids: Prompts, or else `embeds`.
        mask: True where a prompt has a token, padding being on any side; None is
            everywhere.
        continuations: Token ids, the same for all prompts or others for each.
        continuation_mask: True where there is a token, padding coming last; None is
            everywhere.
        embeds: Prompts as embeddings.
        adapters: Adapters from `init_adapters`.
        alpha: Alpha of the adapters' config; needed with them.

    Raises:
        InputError: As in `generate`; of continuations too.
        ValueError: If padding stands before a continuation's token, or adapters come
            without alpha.
    """
    vocab_size = decoder.cfg.vocab_size
    mask = check_prompts(ids, embeds, mask, vocab_size)
    shape = continuations.shape
    if continuations.ndim not in (2, 3) or 0 in shape:
        raise InputError(
            f"continuations have the shape {shape}: need [k, n], or [b, k, n], with "
            "one of one token or more."
        )
    kept = np.ones(shape, bool)
    if continuation_mask is not None:
        kept = np.asarray(boolean_mask(continuation_mask, shape, "continuation_mask"))
    if (np.diff(kept.astype(np.int8), axis=-1) > 0).any():
        raise ValueError("The padding of continuations comes after their tokens.")
    if not kept[..., 0].all():
        raise InputError(
            "continuation_mask: a continuation without any token has no likelihood: "
            "leave it out."
        )
    check_ids(continuations, kept, vocab_size, "continuations")
    scores = _score(
        decoder,
        params,
        ids,
        mask,
        embeds,
        continuations,
        kept,
        adapters=adapters,
        alpha=alpha,
    )
    refuse_nan(scores, "score_continuations")
    return scores


@functools.partial(jax.jit, static_argnames=("decoder", "alpha"))
def _score(
    decoder: Decoder,
    params: PyTree,
    ids: Array | None,
    mask: Array | None,
    embeds: Array | None,
    tokens: Array,
    kept: Array,
    *,
    adapters: PyTree,
    alpha: float | None,
) -> Float[Array, "b k"]:
    prompt = embeds if ids is None else ids
    b, length = (0, 0) if prompt is None else prompt.shape[:2]
    k, n = tokens.shape[-2:]
    tokens, kept = (jnp.broadcast_to(x, (b, k, n)) for x in (tokens, kept))
    num_read = k * (n - 1)
    logits, cache = prefill(
        decoder,
        params,
        ids,
        mask,
        embeds=embeds,
        room=length + num_read,
        adapters=adapters,
        alpha=alpha,
    )
    scores = log_likelihood(logits[:, None], tokens[:, :, 0])[:, :, None]
    if num_read:
        filled = kept[:, :, :-1].reshape(b * k, n - 1)
        start = cache.mask.sum(axis=1, keepdims=True, dtype=jnp.int32)
        positions = token_positions(filled).reshape(b, num_read) + start
        own = np.kron(np.eye(k, dtype=bool), np.tri(n - 1, dtype=bool))
        out = apply_decoder(
            decoder,
            params,
            adapters,
            alpha,
            ids=tokens[:, :, :-1].reshape(b, num_read),
            mask=filled.reshape(b, num_read),
            positions=positions,
            visible=own[None],
            cache=cache,
        )
        later = out["logits"].reshape(b, k, n - 1, -1)
        later = log_likelihood(later, tokens[:, :, 1:])
        scores = jnp.concatenate([scores, later], axis=2)
    return jnp.sum(jnp.where(kept, scores, 0), axis=2)
