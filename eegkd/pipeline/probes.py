"""Probes of a stage, measured over the same few windows at every evaluation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eegkd.data.batches.maker import BatchMaker, BatchPlan, Cache
from eegkd.losses import Term
from eegkd.losses.compose import lookup
from eegkd.pipeline.folds import FoldData
from eegkd.systems import Stage, System, get_stage, replace_stage, upstream_inputs
from eegkd.systems.batches import prepare_fn
from eegkd.train.inputs import (
    teacher_rows,
    teacher_specs,
    upstream_tensors,
    with_labelled,
)
from eegkd.typing import Array, Batch, Variables

MOST_WINDOWS = 128
_MOST_BYTES = 2**26
Samples = Mapping[str, Batch]
"""Windows of `train`, `val` and `test` subjects, with outputs of earlier stages."""


def term_values(
    system: System, stage_name: str, terms: Sequence[Term]
) -> Callable[[Variables, Batch], dict[str, Array]]:
    """Builds `(variables in training, sample) -> one number per window, by term`."""
    stage = get_stage(system, stage_name)
    reader = _reader(stage)

    def run(variables: Variables, batch: Batch) -> dict[str, Array]:
        found = upstream_tensors(system, reader, {}, batch)
        own, _ = stage.forward(variables, batch, found, train=False, key=None)
        tensors = {**found, stage_name: own, "batch": with_labelled(batch)}
        return {
            term.name: term.fn(*(lookup(tensors, name) for name in term.inputs))
            for term in terms
        }

    return run


def take_samples(
    system: System,
    upstream: Mapping[str, Variables],
    data: FoldData,
    cache: Cache | None = None,
) -> Samples:
    """Samples windows evenly from each part of a fold, and runs earlier stages on them.

    Args:
        system: System whose student is measured.
        upstream: Variables of the earlier stages.
        data: The fold; all labels are shown.
        cache: Outputs of earlier stages that cover all of the fold's windows, where
            those cannot be run on windows alone.

    Returns:
        Samples; empty if there are no probes, or if an earlier stage has no variables
        here because its outputs came from outside.
    """
    stage, fold = system.stages[-1], data.fold
    if not stage.probes:
        return {}
    reader = _reader(stage)
    names = upstream_inputs(reader)
    if not {name.partition(".")[0] for name in names} <= set(upstream):
        return {}
    plan = BatchPlan(prepare=prepare_fn(system), zscore=data.zscore, cache=cache)
    maker = BatchMaker(store=data.store, plan=plan)
    read = replace_stage(system, reader)
    run, num = None, MOST_WINDOWS
    if names and cache is None:
        specs = teacher_specs(read, stage.name, names, upstream, maker(fold.val[:1]))
        each = sum(
            math.prod(shape) * np.dtype(dtype).itemsize
            for shape, dtype in specs.values()
        )
        num = min(num, max(8, _MOST_BYTES // each))
        run = teacher_rows(read, stage.name, names, upstream)
    samples = {}
    parts = {"train": fold.train, "val": fold.val, "test": fold.test}
    for part, rows in parts.items():
        # A smaller part repeats windows: all have as many, and nothing new is
        # compiled.
        batch = maker(rows[np.linspace(0, len(rows) - 1, num).round().astype(int)])
        outputs: dict[str, dict[str, np.ndarray]] = {}
        for name, value in (run(batch) if run else {}).items():
            group, _, key = name.partition(".")
            outputs.setdefault(group, {})[key] = value
        samples[part] = {**batch, "cache": outputs} if outputs else batch
    return samples


def probe_means(run: Any, variables: Variables, samples: Samples) -> dict[str, Any]:
    """Returns the means `train/<term>` and `val/<term>`, over the last axis."""
    found = {}
    for part in ("train", "val"):
        if part in samples:
            values = jax.device_get(run(variables, samples[part]))
            found |= {f"{part}/{name}": x.mean(axis=-1) for name, x in values.items()}
    return found


def measure_probes(
    run: Any, variables: Variables, samples: Samples, num_classes: int
) -> dict[str, Any]:
    """Returns the mean of every probe over the test windows, and by their classes."""
    if "test" not in samples:
        return {}
    values = jax.device_get(run(variables, samples["test"]))
    label = samples["test"]["label"]
    # Of several labels, a window is in the group of each that it has.
    own = label[:, None] == np.arange(num_classes) if label.ndim == 1 else label == 1
    return {
        name: {
            "mean": float(x.mean()),
            "by_class": [
                float(x[mine].mean()) if np.any(mine) else None for mine in own.T
            ],
        }
        for name, x in values.items()
    }


def _reader(stage: Stage) -> Stage:
    """Returns the stage as one that reads what its probes read as well."""
    terms = tuple(probe.term for probe in stage.probes)
    return stage._replace(terms=(*stage.terms, *terms))
