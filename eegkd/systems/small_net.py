"""EEGNet trained on labels alone: is distillation needed at all?"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.losses import Term, cross_entropy
from eegkd.models import EEGNet, EEGNetConfig
from eegkd.systems import Stage, System, keep_all
from eegkd.typing import Array, Batch, Float, StepKeys, Tensors, Variables


def make_system(config: EEGNetConfig) -> System:
    """Builds a system of one stage, `student`, with cross-entropy on labels."""
    net = EEGNet(config)
    term = Term(
        "ce", cross_entropy, ("student.logits", "batch.label"), 1.0, "batch.labelled"
    )
    stage = Stage(
        name="student",
        init=functools.partial(_init, net),
        forward=functools.partial(_forward, net),
        terms=(term,),
    )
    return System(
        name="small_net",
        inputs=("signal",),
        prepare=keep_all,
        stages=(stage,),
        predict=functools.partial(_predict, net),
    )


def with_dropout(config: EEGNetConfig, dropout: float) -> EEGNetConfig:
    """Returns `config` with another dropout, one of the two things tuned."""
    return dataclasses.replace(config, dropout=dropout)


def _init(
    net: EEGNet, key: Array, batch: Batch, upstream: Mapping[str, Variables]
) -> Variables:
    variables = dict(net.init({"params": key}, jnp.asarray(batch["signal"])[:1]))
    return Variables(variables.pop("params"), {}, variables)


def _forward(
    net: EEGNet,
    variables: Variables,
    batch: Batch,
    upstream: Mapping[str, Tensors],
    *,
    train: bool,
    key: StepKeys | None,
) -> tuple[Tensors, Any]:
    out, state = net.apply(
        {"params": variables.params, **variables.state},
        batch["signal"],
        train=train,
        rngs={"dropout": key.local} if key is not None else {},
        mutable=list(variables.state) if train else [],
    )
    return out, {**variables.state, **state}


def _predict(
    net: EEGNet, stage: str, variables: Variables, batch: Batch
) -> Float[Array, "b k"]:
    tensors, _ = _forward(net, variables, batch, {}, train=False, key=None)
    return jax.nn.softmax(tensors["logits"], axis=-1)
