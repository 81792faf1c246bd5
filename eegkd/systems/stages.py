"""A stage that is one Linen module on the signal, and probabilities from logits."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.losses import Term
from eegkd.systems import Stage
from eegkd.typing import Array, Batch, Float, StepKeys, Tensors, Variables

Forward = Callable[..., tuple[Tensors, Any]]


def module_stage(
    name: str,
    module: Any,
    terms: tuple[Term, ...] = (),
    *,
    multilabel: bool = False,
    **fields: Any,
) -> Stage:
    """Makes the stage of a module that maps a signal to named tensors.

    Args:
        name: The stage's name.
        module: Linen module; its tensors include `logits` unless `predict` is given.
        terms: Losses.
        multilabel: True if a window may have several classes, as in `SignalConfig`.
        fields: Other fields of the stage.
    """
    forward = functools.partial(_forward, module)
    predict = class_probabilities(forward, multilabel=multilabel)
    fields = {"predict": predict} | fields
    init = functools.partial(_init, module)
    return Stage(name, init, forward, terms, **fields)


def class_probabilities(
    forward: Forward, *, multilabel: bool = False
) -> Callable[[Variables, Batch], Float[Array, "b k"]]:
    """Makes the `predict` of a stage whose tensors include `logits`.

    Probabilities add up to one, or with `multilabel` each class has its own.
    """
    activation = jax.nn.sigmoid if multilabel else jax.nn.softmax

    def predict(variables: Variables, batch: Batch) -> Float[Array, "b k"]:
        tensors, _ = forward(variables, batch, {}, train=False, key=None)
        return activation(tensors["logits"])

    return predict


def _init(
    module: Any, key: Array, batch: Batch, upstream: Mapping[str, Variables]
) -> Variables:
    del upstream
    variables = dict(module.init({"params": key}, jnp.asarray(batch["signal"])[:1]))
    return Variables(variables.pop("params"), {}, variables)


def _forward(
    module: Any,
    variables: Variables,
    batch: Batch,
    upstream: Mapping[str, Tensors],
    *,
    train: bool,
    key: StepKeys | None,
) -> tuple[Tensors, Any]:
    del upstream
    apply: Any = module.apply  # Linen's type does not know `mutable`
    out, state = apply(
        {"params": variables.params, **variables.state},
        batch["signal"],
        train=train,
        rngs={"dropout": key.local} if key is not None else {},
        mutable=list(variables.state) if train else [],
    )
    return out, {**variables.state, **state}
