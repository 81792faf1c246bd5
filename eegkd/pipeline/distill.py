"""Stages in order, then the student, then its controls, on every fold."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.data.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.controls import OUTPUT_CONTROLS, SYSTEM_CONTROLS
from eegkd.pipeline.config import RunConfig
from eegkd.pipeline.fit import Fitted, FoldData, Job
from eegkd.pipeline.programs import (
    Program,
    make_program,
    term_weights,
    upstream_outputs,
)
from eegkd.systems import SignalConfig, System, upstream_inputs
from eegkd.train.step import upstream_tensors
from eegkd.typing import Variables

MEMORY_LIMIT = 2 * 2**30


class Models(NamedTuple):
    """The programs of a system and of its controls.

    Attributes:
        stages: One for every stage before the student, in order.
        student: The student's; controls that differ in weights alone share it.
        no_teacher: The student's without earlier stages, if that row is wanted.
    """

    stages: tuple[Program, ...]
    student: Program
    no_teacher: Program | None


def signal_of(store: WindowStore) -> SignalConfig:
    """Reads what a system must know of the data."""
    manifest = store.manifest
    return SignalConfig(
        n_chans=store.signal.shape[1],
        n_times=store.signal.shape[2],
        rate=manifest["rate"],
        classes=tuple(manifest["classes"]),
    )


def make_models(system: System, config: RunConfig, steps: int) -> Models:
    """Builds every program that the wanted rows need."""
    alone = None
    if "no_teacher" in config.rows:
        system_alone = SYSTEM_CONTROLS["no_teacher"](system)
        alone = make_program(system_alone, system.stages[-1].name, config, steps)
    stages = tuple(make_program(system, s.name, config, steps) for s in system.stages)
    return Models(stages[:-1], stages[-1], alone)


def train_rows(
    models: Models,
    data: FoldData,
    config: RunConfig,
    folder: Path,
    run: Callable[[Program, Job, FoldData], Fitted],
    rows: Sequence[str],
) -> Iterator[tuple[str, int, Program, Fitted]]:
    """Trains the stages, the student and its controls on one fold.

    Yields:
        The model's name, its seed, its program and the finished training.
    """
    system, student = models.student.system, models.student
    upstream: dict[str, Variables] = {}
    for program in models.stages:
        job = Job(program.stage, 0, folder / program.stage, upstream=dict(upstream))
        fitted = run(program, job, data)
        upstream[program.stage] = fitted.variables
        yield program.stage, 0, program, fitted
    cache = None
    if _in_memory(system, upstream, data, config):
        stage = student.stage
        every = data.fold.train
        cache = upstream_outputs(
            system, stage, upstream, data.store, every, data.zscore
        )
    labels = data.store.student_labels
    wanted = ("student", *rows)
    for seed in range(config.num_seeds):
        for name in wanted:
            job = Job(
                name,
                seed,
                folder / name / f"seed{seed}",
                upstream=upstream,
                cache=cache,
                labels=labels,
            )
            program = student
            if name == "no_teacher" and models.no_teacher is not None:
                program = models.no_teacher
                job = job._replace(upstream={}, cache=None)
            elif name == "alpha_0":
                weights = term_weights(SYSTEM_CONTROLS[name](system), student.stage)
                job = job._replace(weights=weights)
            elif name in OUTPUT_CONTROLS:
                job = job._replace(cache=_moved(name, cache, data, labels, seed))
            elif name != "student":
                continue
            yield name, seed, program, run(program, job, data)


def _moved(
    name: str, cache: Any, data: FoldData, labels: np.ndarray, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    if cache is None:
        raise InputError(
            f"The row {name} needs the teacher's outputs in memory: take it out of "
            "--rows, or set --train.teacher memory."
        )
    control = OUTPUT_CONTROLS[name]
    rows = data.fold.train
    return {s: control(t, rows, labels, seed=seed) for s, t in cache.items()}


def _in_memory(
    system: System,
    upstream: Mapping[str, Variables],
    data: FoldData,
    config: RunConfig,
) -> bool:
    """Decides whether the teacher's outputs are computed once and kept."""
    if config.train.teacher != "auto":
        return config.train.teacher == "memory"
    stage = system.stages[-1]
    if not upstream_inputs(stage):
        return False
    example = data.store.signal[:1]

    def one(upstream: Mapping[str, Variables]) -> Any:
        return upstream_tensors(system, stage, upstream, {"signal": example})

    shapes = jax.tree.leaves(jax.eval_shape(one, upstream))
    row = sum(int(np.prod(s.shape)) * s.dtype.itemsize for s in shapes)
    return row * len(data.store) <= MEMORY_LIMIT
