"""How long a run will take: its own compiled steps timed on its own data."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.data.batches import BatchMaker
from eegkd.data.folds import Fold
from eegkd.data.store import WindowStore
from eegkd.pipeline.config import RunConfig
from eegkd.pipeline.fit import example, init_key
from eegkd.pipeline.programs import Program, predict_rows
from eegkd.systems import get_stage
from eegkd.train.state import init_state
from eegkd.train.teacher_cache import Specs
from eegkd.typing import Variables

TIMED_STEPS = 3


class Cost(NamedTuple):
    """What one training of a program costs.

    Attributes:
        step_s: Seconds an update.
        window_s: Seconds a judged window.
        bytes: Of the variables it leaves on disk.
    """

    step_s: float
    window_s: float
    bytes: int


def measure(
    program: Program,
    config: RunConfig,
    store: WindowStore,
    upstream: Mapping[str, Variables],
    *,
    kept: Specs | None = None,
) -> tuple[Cost, Variables]:
    """Compiles a program's step and prediction, and times a few of each.

    Args:
        program: What to time.
        config: The run's.
        store: Its windows.
        upstream: Earlier stages' variables.
        kept: Outputs that a step reads: random ones stand for them.

    Returns:
        The cost, and untrained finished variables for later stages to be measured on.
    """
    stage = get_stage(program.system, program.stage)
    key = jax.random.key(0)
    size = min(config.train.batch_size, len(store))
    rows = np.resize(np.arange(size), config.train.batch_size // jax.process_count())
    cache = _random_outputs(kept, size) if kept else None
    batch = BatchMaker(store=store, labels=store.labels, cache=cache)(rows)
    variables = program.init(init_key(0), example(store), dict(upstream))
    state = init_state(stage, variables, program.tx, key)
    place = program.runner.place
    state, frozen = place(state), place(variables.frozen)
    given = place({} if cache else dict(upstream))
    times = []
    for _ in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        state, metrics = program.runner.step(
            state, frozen, given, program.runner.put(batch)
        )
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    finished = program.finish(variables)
    judged = store.rows(store.subjects.names)[:256]
    predict_rows(program, finished, store, judged)
    start = time.perf_counter()
    predict_rows(program, finished, store, judged)
    window_s = (time.perf_counter() - start) / len(judged)
    size_bytes = sum(x.nbytes for x in jax.tree.leaves(finished))
    return Cost(float(np.median(times[1:])), window_s, size_bytes), finished


def _random_outputs(specs: Specs, num: int) -> dict[str, dict[str, np.ndarray]]:
    rng, found = np.random.default_rng(0), {}
    for name, (shape, dtype) in specs.items():
        stage, _, key = name.partition(".")
        values = rng.standard_normal((num, *shape)).astype(np.dtype(dtype))
        found.setdefault(stage, {})[key] = values
    return found


def total_seconds(
    jobs: Sequence[tuple[Cost, int]],
    folds: Sequence[Fold],
    *,
    steps: int,
    epochs: int,
) -> float:
    """Adds up trainings: `(cost, how many a fold)`, over all folds."""
    seconds = 0.0
    for fold in folds:
        judged = len(fold.val) * (epochs + 1) + len(fold.test)
        for cost, num in jobs:
            seconds += num * (steps * cost.step_s + judged * cost.window_s)
    return seconds


def describe(seconds: float, disk: Any) -> str:
    """Says a duration and a size as a person would."""
    minutes = seconds / 60
    span = f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
    return f"{span}, {disk / 2**20:.0f} MiB of disk"
