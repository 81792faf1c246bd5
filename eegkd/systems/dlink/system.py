"""DLink: a fine-tuned foundation model distilled into a student for small devices.

The teacher is CBraMod or LaBraM with a head, tuned on the task. The student reaches
the teacher's tokens before it compresses them, and learns from

    (1 - alpha) CE + alpha T^2 KL + lambda_feat L_feat + lambda_spec L_spec

where L_feat is its distance to a mixture of the teacher's layers that a router makes
for each example, and L_spec compares magnitudes and phases of spectra with that
mixture's, before or after compression. Router and decoder are trained with the student
and then dropped: a finished student reads the signal alone.

References:
    DLink, arXiv 2604.15016. The full text was not at hand: every choice has a switch.
"""

import dataclasses

from eegkd.errors import InputError
from eegkd.models import DlinkStudent, DlinkStudentConfig, LayerRouter, RoutedTarget
from eegkd.systems import System, keep_all
from eegkd.systems.bridge import add_bridge
from eegkd.systems.channels import see_channels, student_columns, student_signal
from eegkd.systems.dlink.config import DlinkConfig
from eegkd.systems.dlink.probes import fidelity, ranks, routing
from eegkd.systems.dlink.terms import decodes, label_term, router_terms, student_terms
from eegkd.systems.foundation import grid_fields, make_foundation
from eegkd.systems.stages import module_stage


def make_system(config: DlinkConfig) -> System:
    """Builds the two stages, `teacher` and `student`, of one configuration.

    Raises:
        InputError: If the teacher cannot take the data, its weights cannot be read, or
            there is no layer or channel of a wanted name.
    """
    teacher = make_foundation(config.signal, config.teacher)
    student = DlinkStudent(student_config(config, teacher.module.cfg.dim))
    of_teacher = label_term("teacher", config, config.teacher.label_smoothing, 1.0)
    stages = (
        teacher.stage("teacher", (of_teacher,)),
        module_stage(
            "student",
            student,
            student_terms(config),
            multilabel=config.signal.multilabel,
            probes=ranks(),
        ),
    )
    system = System("dlink", ("signal",), keep_all, stages)
    system = see_channels(system, student_columns(config))
    if not config.loss.lambda_feat and not config.loss.lambda_spec:
        return system
    offered = _offered(config, teacher.layers)
    return _with_router(system, config, offered, student.cfg.dim)


def student_config(config: DlinkConfig, dim: int) -> DlinkStudentConfig:
    """Returns the student's config for the data and the teacher's width.

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
        **grid_fields(student_signal(config)),
        filters=dim // 8,
        num_classes=len(config.signal.classes),
    )


def _offered(config: DlinkConfig, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the teacher's layers to mix, in order of depth."""
    unknown = [name for name in config.router.layers if name not in layers]
    if unknown:
        raise InputError(
            f"--router.layers {' '.join(unknown)}: the teacher has {' '.join(layers)}."
        )
    offered = config.router.layers or layers
    # Other layers would be computed, or kept, for nothing.
    return offered[-1:] if config.router.mode == "last" else offered


def _with_router(
    system: System, config: DlinkConfig, layers: tuple[str, ...], dim: int
) -> System:
    """Adds router and decoder, and the terms that read their outputs."""
    router, columns = config.router, student_columns(config)
    fields = grid_fields(student_signal(config))
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
    return add_bridge(
        system,
        "student",
        "router",
        bridge,
        inputs,
        *router_terms(config, seen),
        probes=(*routing(config, layers), *fidelity(seen, dim)),
    )


def deployed(config: DlinkConfig) -> DlinkConfig:
    """Returns options that name no file of weights: finished variables hold them."""
    teacher = dataclasses.replace(config.teacher, weights="")
    return dataclasses.replace(config, teacher=teacher)
