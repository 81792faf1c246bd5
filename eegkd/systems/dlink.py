"""DLink: a fine-tuned foundation model distilled into a student for small devices.

The teacher is CBraMod or LaBraM with a head, tuned on the task. The student reaches
the teacher's tokens before it compresses them, and learns from

    (1 - alpha) CE + alpha T^2 KL + lambda_feat L_feat + lambda_spec L_spec

where L_feat is its distance to a mixture of the teacher's layers that a router makes
for each example, and L_spec compares magnitudes and phases of spectra with that
mixture's, before or after compression. Router and decoder are trained with the student
and left behind: a finished student reads the signal alone.

References:
    DLink, arXiv 2604.15016. The full text was not at hand: every choice has a switch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.errors import InputError
from eegkd.models import (
    DlinkStudent,
    DlinkStudentConfig,
    LayerRouter,
    RoutedTarget,
)
from eegkd.systems import SignalConfig, Stage, System, keep_all
from eegkd.systems.bridged import add_bridge
from eegkd.systems.dlink_config import DlinkConfig
from eegkd.systems.dlink_terms import (
    decodes,
    label_term,
    router_terms,
    student_terms,
)
from eegkd.systems.foundation import grid_fields, make_foundation
from eegkd.typing import Array, Batch, Float, StepKeys, Tensors, Variables


def make_system(config: DlinkConfig) -> System:
    """Builds the two stages, `teacher` and `student`, of one configuration.

    Args:
        config: With `signal` filled from the data it is to run on.

    Raises:
        InputError: If the teacher cannot take the data, its weights cannot be read, or
            a layer is asked for that it does not have.
    """
    teacher = make_foundation(config)
    student = DlinkStudent(student_config(config, teacher.module.cfg.dim))
    columns = seen_channels(config)
    of_teacher = label_term("teacher", config, config.teacher.label_smoothing, 1.0)
    stages = (
        Stage("teacher", teacher.init, teacher.forward, (of_teacher,)),
        Stage(
            "student",
            functools.partial(_init_student, student, columns),
            functools.partial(_forward_student, student, columns),
            student_terms(config),
        ),
    )
    forwards = {stage.name: stage.forward for stage in stages}
    system = System(
        name="dlink",
        inputs=("signal",),
        prepare=keep_all,
        stages=stages,
        predict=functools.partial(_predict, forwards),
    )
    if not config.loss.lambda_feat and not config.loss.lambda_spec:
        return system
    return _with_router(system, config, _offered(config, teacher.layers))


def student_config(config: DlinkConfig, dim: int) -> DlinkStudentConfig:
    """Fits the student to the data, and to the teacher's width.

    Raises:
        InputError: If it cannot have that width.
    """
    groups = config.student.groups
    if dim % (8 * groups):
        raise InputError(
            f"The student's width is the teacher's, {dim}, and has to be a multiple of "
            f"8 times --student.groups, {groups}: choose other groups."
        )
    return dataclasses.replace(
        config.student,
        **grid_fields(_seen(config)),
        filters=dim // 8,
        num_classes=len(config.signal.classes),
    )


def seen_channels(config: DlinkConfig) -> tuple[int, ...]:
    """Returns the columns that the student sees; () is all.

    Raises:
        InputError: If the data have no channel of that name.
    """
    have = [name.upper() for name in config.signal.channels]
    unknown = [n for n in config.student_channels if n.upper() not in have]
    if unknown:
        raise InputError(
            f"--student_channels {' '.join(unknown)}: the windows have "
            f"{' '.join(config.signal.channels) or 'channels without names'}."
        )
    return tuple(have.index(name.upper()) for name in config.student_channels)


def _seen(config: DlinkConfig) -> SignalConfig:
    """Returns what the student is given."""
    signal, columns = config.signal, seen_channels(config)
    if not columns:
        return signal
    return dataclasses.replace(
        signal,
        n_chans=len(columns),
        channels=tuple(signal.channels[i] for i in columns),
        units=tuple(signal.units[i] for i in columns) if signal.units else (),
    )


def _select(batch: Batch, columns: tuple[int, ...]) -> Array:
    signal = jnp.asarray(batch["signal"])
    return signal[:, np.array(columns)] if columns else signal


def _init_student(
    module: DlinkStudent,
    columns: tuple[int, ...],
    key: Array,
    batch: Batch,
    upstream: Mapping[str, Variables],
) -> Variables:
    variables = dict(module.init({"params": key}, _select(batch, columns)[:1]))
    return Variables(variables.pop("params"), {}, variables)


def _forward_student(
    module: DlinkStudent,
    columns: tuple[int, ...],
    variables: Variables,
    batch: Batch,
    upstream: Mapping[str, Tensors],
    *,
    train: bool,
    key: StepKeys | None,
) -> tuple[Tensors, Any]:
    apply: Any = module.apply  # Linen's type does not know `mutable`
    out, state = apply(
        {"params": variables.params, **variables.state},
        _select(batch, columns),
        train=train,
        rngs={"dropout": key.local} if key is not None else {},
        mutable=list(variables.state) if train else [],
    )
    return out, {**variables.state, **state}


def _predict(
    forwards: Mapping[str, Callable[..., tuple[Tensors, Any]]],
    stage: str,
    variables: Variables,
    batch: Batch,
) -> Float[Array, "b k"]:
    tensors, _ = forwards[stage](variables, batch, {}, train=False, key=None)
    return jax.nn.softmax(tensors["logits"], axis=-1)


def _offered(config: DlinkConfig, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Names the teacher's layers that are mixed, the first one first."""
    unknown = [name for name in config.router.layers if name not in layers]
    if unknown:
        raise InputError(
            f"--router.layers {' '.join(unknown)}: the teacher has {' '.join(layers)}."
        )
    offered = config.router.layers or layers
    # Others would be computed, or kept, for nothing.
    return offered[-1:] if config.router.mode == "last" else offered


def _with_router(
    system: System, config: DlinkConfig, layers: tuple[str, ...]
) -> System:
    """Adds router and decoder, and the terms that read what they make."""
    router, columns = config.router, seen_channels(config)
    fields = grid_fields(_seen(config))
    seen = len(fields["channels"]), fields["num_patches"]
    probe = router.learns and router.aux_probe
    mixture = LayerRouter(
        mode=router.mode,
        hidden=router.hidden,
        temperature=router.temperature,
        normalise=router.normalise,
        stop_gradient=router.stop_gradient,
        num_classes=len(config.signal.classes) if probe else 0,
    )
    bridge = RoutedTarget(mixture, seen[1], decodes(config), columns)
    inputs = ("student.compressed", *(f"teacher.{name}" for name in layers))
    terms = router_terms(config, layers, seen)
    return add_bridge(system, "student", "router", bridge, inputs, *terms)


def deployed(config: DlinkConfig) -> DlinkConfig:
    """Returns options that name no file of weights: finished variables hold them."""
    teacher = dataclasses.replace(config.teacher, weights="")
    return dataclasses.replace(config, teacher=teacher)
