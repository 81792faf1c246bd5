"""A language model, with or without images, trained on next tokens: one stage.

All weights are trained, or LoRA adapters: the base weights are `frozen` then, and have
neither gradient nor optimiser slot. Nothing here is about EEG; systems that answer in
words build on it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import softmax

from eegkd.errors import InputError
from eegkd.losses import Term, next_token_loss, num_targets
from eegkd.losses.language import CHUNK
from eegkd.models import LoraConfig, apply_adapted, apply_params
from eegkd.models.lora import init_adapters
from eegkd.systems import Stage, System, keep_all
from eegkd.typing import Array, Batch, Float, Key, PyTree, Tensors, Variables

TEXT = ("ids", "mask", "positions")
IMAGES = ("visual_at", "pixels", "visual_index", "visual", "visual_mask")
"""Batch keys that a model takes, where present (`eegkd.data.language.packing`)."""

_BASE, _LORA, _LANGUAGE, _HEAD = "base", "lora", "language", "lm_head"


def language_stage(
    module: Any,
    *,
    lora: LoraConfig | None = None,
    linears: Sequence[str] = (),
    trained: Sequence[str] | None = None,
    name: str = "student",
    chunk: int = CHUNK,
) -> Stage:
    """Makes the stage of a `Decoder` or a `Llava`.

    `params` hold `base`, the groups of the model's own weights that are trained, in
    float32 (updates of a ten-thousandth vanish in bfloat16), and `lora`, the adapters;
    all else of the model is in `frozen`, in the model's `param_dtype`.

    The stage's `nll [b]` is the mean loss of an example's targets, and its one term
    weighs it by their number: the mean is one over all targets of the batch. Labels of
    the batch are ids aligned with the tokens; negative ones are no targets. The head is
    applied inside the loss, some tokens at a time, and inside `forward`, so that an
    accumulated step never keeps the tokens of other micro-batches.

    Args:
        module: The model.
        lora: Adapters; None has none.
        linears: The model's linear layers, of `find_linears`; needed with adapters.
        trained: Top-level groups of its own weights that are trained, as "projector";
            None is all without adapters, and none with them.
        name: Name of the stage.
        chunk: Tokens of an example whose logits are in memory at once.
    """

    def init(
        key: Key[Array, ""], batch: Batch, upstream: Mapping[str, Variables]
    ) -> Variables:
        del upstream
        own, other = jax.random.split(key)
        first = {k: batch[k][:1] for k in (*TEXT, *IMAGES) if k in batch}
        weights = module.init(own, **first)["params"]
        return split_variables(other, weights, lora, linears, trained)

    def forward(
        variables: Variables, batch: Batch, upstream: Any, *, train: bool, key: Any
    ) -> tuple[Tensors, PyTree]:
        del upstream
        options: dict[str, Any] = {"logits": "none"}
        if train and lora is not None and lora.dropout:
            options |= {"dropout": lora.dropout, "rngs": {"dropout": key.local}}
        out = run_language(module, variables, batch, lora=lora, **options)
        head = vocabulary(join_base(variables))
        loss = next_token_loss(out["tokens"], head, batch["labels"], chunk=chunk)
        count = num_targets(batch["labels"])
        return {**out, "nll": loss, "num_targets": count}, variables.state

    def predict(variables: Variables, batch: Batch) -> Float[Array, "b v"]:
        out = run_language(module, variables, batch, lora=lora, logits="last")
        return softmax(out["logits"][:, 0])

    term = Term("next_token", _as_it_is, (f"{name}.nll",), count=f"{name}.num_targets")
    return Stage(name, init, forward, (term,), predict)


def language_system(module: Any, **options: Any) -> System:
    """Makes a system of one language stage; `predict` is of the next word."""
    return System("language", TEXT[:2], keep_all, (language_stage(module, **options),))


def split_variables(
    key: Key[Array, ""],
    weights: PyTree,
    lora: LoraConfig | None,
    linears: Sequence[str] = (),
    trained: Sequence[str] | None = None,
) -> Variables:
    """Divides a model's weights, as loaded, into trained and frozen; adds adapters.

    Arguments are those of `language_stage`.

    Raises:
        InputError: If a target of the adapters is the head, which the loss applies
            without them, or no linear layer.
        ValueError: If the model has no such group.
    """
    if trained is None:
        trained = () if lora else tuple(weights)
    unknown = sorted(set(trained) - set(weights))
    if unknown:
        raise ValueError(
            f"The model has the groups {', '.join(weights)}; got {', '.join(unknown)}."
        )
    widen = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    params = {_BASE: {name: jax.tree.map(widen, weights[name]) for name in trained}}
    if lora is not None:
        adapters = params[_LORA] = init_adapters(key, weights, linears, lora)
        if _HEAD in adapters.get(_LANGUAGE, adapters):
            raise InputError(
                f"lora.targets {', '.join(lora.targets)}: the head ({_HEAD}) has no "
                "adapters here: name layers alone, as *layers/*, or train it whole."
            )
    frozen = {name: value for name, value in weights.items() if name not in trained}
    return Variables(params, frozen, {})


def join_base(variables: Variables) -> PyTree:
    """Returns the model's own weights, trained and frozen ones together."""
    return {**variables.frozen, **variables.params[_BASE]}


def run_language(
    module: Any,
    variables: Variables,
    batch: Batch,
    *,
    lora: LoraConfig | None,
    **options: Any,
) -> dict[str, Any]:
    """Calls the model with its inputs of the batch.

    Args:
        module: The model.
        variables: Result of `split_variables`.
        batch: Packed rows.
        lora: Adapters of the stage.
        options: Options of the model; with adapters also of `apply_adapted`.
    """
    inputs = {k: batch[k] for k in (*TEXT, *IMAGES) if k in batch}
    base = join_base(variables)
    if lora is None:
        return apply_params(module, base, **inputs, **options)
    adapters = variables.params[_LORA]
    return apply_adapted(module, base, adapters, alpha=lora.alpha, **inputs, **options)


def vocabulary(weights: PyTree) -> Float[Array, "d v"]:
    """Returns the head of a decoder's or a LLaVA's weights, tied or not."""
    language = weights.get(_LANGUAGE, weights)
    if _HEAD in language:
        return language[_HEAD]["kernel"]
    return language["embed"]["embedding"].T


_as_it_is: Callable[[Array], Array] = lambda loss: loss
