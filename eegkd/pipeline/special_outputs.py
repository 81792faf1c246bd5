"""Outputs of earlier stages that are read through a cache alone.

A stage whose scope is a recording cannot be run on a batch of windows, and a
cross-fitted stage describes a training window by the training that has not seen it. So
what later stages read of them is computed once, for all windows of a fold.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from eegkd.errors import InputError
from eegkd.pipeline.folds import FoldData, part_of_rows
from eegkd.pipeline.inference import collect, spread
from eegkd.systems import SignalConfig, Stage, System, upstream_inputs
from eegkd.systems.batches import EXAMPLE_WINDOWS, example_batch
from eegkd.systems.outputs import needs_outputs, output_shapes, wanted_outputs
from eegkd.train.inputs import Specs, teacher_specs, upstream_tensors
from eegkd.typing import Batch, Variables

Parts = dict[str, dict[str, Variables]]
"""Stage name -> part -> variables of the training without that part."""
Tensors = dict[str, dict[str, np.ndarray]]


def divided(stage: Stage, data: FoldData, seed: int) -> np.ndarray:
    """Returns the part of each store row, for a stage that is cross-fitted."""
    if not stage.options.crossfit:
        return np.zeros(len(data.store), np.int32)
    return part_of_rows(data, stage.options.crossfit, seed)


def output_specs(
    system: System,
    names: Sequence[str],
    upstream: Mapping[str, Variables],
    signal: SignalConfig,
) -> Specs:
    """Traces the shapes of one window's outputs of earlier stages, by tensor name.

    Raises:
        InputError: If a tensor has no row per window.
    """
    student = system.stages[-1]
    if not needs_outputs(system, student):
        batch = example_batch(system, signal, EXAMPLE_WINDOWS)
        return teacher_specs(system, student.name, names, upstream, batch)
    found = output_shapes(system, student, upstream, signal)
    flat = {f"{s}.{n}": x for s, group in found.items() for n, x in group.items()}
    missing = [n for n in names if n not in flat or flat[n].shape[:1] != (1,)]
    if missing:
        raise InputError(
            f"The student reads {', '.join(missing)}, of which a stage gives nothing "
            "per window: its tensors have one row per window, or it cannot be read."
        )
    return {name: (flat[name].shape[1:], flat[name].dtype.name) for name in names}


def stage_outputs(
    system: System,
    reader: Stage,
    upstream: Mapping[str, Variables],
    parts: Parts,
    data: FoldData,
    *,
    seed: int,
) -> Tensors:
    """Computes the tensors that a stage reads, over all windows of a fold.

    Args:
        system: The system.
        reader: The stage that reads them.
        upstream: Variables of the stages before it.
        parts: Variables of the parts of cross-fitted stages.
        data: The fold.
        seed: Seed of the run, which divides the training subjects.

    Returns:
        Stage name -> tensor name -> array aligned with the store's rows; NaN outside
        the fold.

    Raises:
        InputError: If a stage that is read has no variables here.
    """
    wanted = wanted_outputs(system, reader)
    rows = np.unique(np.concatenate([data.fold.train, data.fold.val, data.fold.test]))
    found: Tensors = {}
    for stage in system.stages:
        names = [name.partition(".")[2] for name in wanted if _of(stage, name)]
        if not names:
            continue
        if stage.name not in upstream:
            raise InputError(
                f"The stage {reader.name} reads {stage.name} for whole recordings or "
                "in parts, so its outputs cannot be given: leave --cache.given."
            )
        owners = divided(stage, data, seed)
        for part in np.unique(owners[rows]):
            mine = rows[owners[rows] == part]
            whole = upstream[stage.name]
            variables = parts[stage.name][str(part)] if part else whole
            values = _run(system, stage, names, variables, data, mine, found)
            for name, value in values.items():
                place = found.setdefault(stage.name, {})
                if name not in place:
                    place[name] = spread(value, mine, len(data.store))
                place[name][mine] = value
    own = upstream_inputs(reader)
    return {
        group: {key: x for key, x in tensors.items() if f"{group}.{key}" in own}
        for group, tensors in found.items()
        if any(name.startswith(f"{group}.") for name in own)
    }


def _run(
    system: System,
    stage: Stage,
    names: Sequence[str],
    variables: Variables,
    data: FoldData,
    rows: np.ndarray,
    cache: Tensors,
) -> dict[str, np.ndarray]:
    """Runs one stage over rows; its inputs of earlier stages are in the cache."""

    @jax.jit
    def forward(variables: Variables, batch: Batch) -> dict:
        alone = stage._replace(terms=())
        read = upstream_tensors(system, alone, {}, batch)
        tensors, _ = stage.forward(variables, batch, read, train=False, key=None)
        return {name: tensors[name] for name in names}

    def run(batch: Batch) -> dict:
        return forward(variables, batch)

    return collect(run, system, stage, data.store, rows, data.zscore, cache or None)


def _of(stage: Stage, name: str) -> bool:
    return name.startswith(f"{stage.name}.")
