"""How long a run will take: its own compiled steps timed on its own data."""

import functools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.config import RunConfig
from eegkd.data.batches.maker import BatchMaker, BatchPlan
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.controls import OUTPUT_CONTROLS
from eegkd.host.sealed import format_bytes
from eegkd.pipeline.baselines import LEARNING_RATES
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.distill import Models
from eegkd.pipeline.fit import example
from eegkd.pipeline.inference import predict_rows
from eegkd.pipeline.teacher_choice import read_specs
from eegkd.pipeline.threads import threads_at_once
from eegkd.systems import get_stage
from eegkd.systems.batches import init_key
from eegkd.train.inputs import Specs
from eegkd.train.state import TrainState, init_state
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
    at_once: int = 1,
) -> tuple[Cost, Variables]:
    """Compiles a program's step and prediction, and times a few of each.

    Args:
        program: What to time.
        config: The run's.
        store: Its windows.
        upstream: Earlier stages' variables.
        kept: Outputs that a step reads: random ones stand for them.
        at_once: Trainings that go on side by side; a step's time is that of all
            steps together, divided by their number.

    Returns:
        The cost, and untrained finished variables for later stages to be measured on.
    """
    stage = get_stage(program.system, program.stage)
    key = jax.random.key(0)
    size = min(config.train.batch_size, len(store))
    rows = np.resize(np.arange(size), config.train.batch_size // jax.process_count())
    cache = _random_outputs(kept, size) if kept else None
    batch = BatchMaker(store=store, plan=BatchPlan(cache=cache))(rows)
    variables = program.init(init_key(0), example(store), dict(upstream))
    place = program.runner.place
    frozen, given = place(variables.frozen), place({} if cache else dict(upstream))

    def run(state: TrainState, num: int) -> TrainState:
        for _ in range(num):
            state, metrics = program.runner.step(
                state, frozen, given, program.runner.put(batch)
            )
            jax.block_until_ready(metrics)
        return state

    begin = functools.partial(
        init_state, stage, variables, program.tx, key, balancer=program.balancer
    )
    states = [run(place(begin()), 1) for _ in range(at_once)]
    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(functools.partial(run, num=TIMED_STEPS), states))
    step_s = (time.perf_counter() - start) / (TIMED_STEPS * at_once)
    finished = program.finish(variables)
    judged = store.rows(store.subjects.names)[:256]
    predict_rows(program, finished, store, judged)
    start = time.perf_counter()
    predict_rows(program, finished, store, judged)
    window_s = (time.perf_counter() - start) / len(judged)
    size_bytes = sum(x.nbytes for x in jax.tree.leaves(finished))
    return Cost(step_s, window_s, size_bytes), finished


def _random_outputs(specs: Specs, num: int) -> dict[str, dict[str, np.ndarray]]:
    rng, found = np.random.default_rng(0), {}
    for name, (shape, dtype) in specs.items():
        stage, _, key = name.partition(".")
        values = rng.standard_normal((num, *shape)).astype(np.dtype(dtype))
        found.setdefault(stage, {})[key] = values
    return found


def trainings(
    models: Mapping[str, Models], nets: Mapping[float, Program], config: RunConfig
) -> list[tuple[Program, int]]:
    """Lists what is trained in a fold: the program, and how often."""
    seeds, jobs = config.num_seeds, []
    for name, group in models.items():
        if not group.shared:
            jobs += [(program, 1) for program in group.stages]
        shared = {"alpha_0", *OUTPUT_CONTROLS} & set(config.rows) if not name else ()
        jobs.append((group.student, seeds * (1 + len(shared))))
        if group.no_teacher is not None and not name:
            jobs.append((group.no_teacher, seeds))
    tuned = len(LEARNING_RATES)
    jobs += [(program, tuned) for program in nets.values()]
    if nets:
        jobs.append((next(iter(nets.values())), seeds - 1))
    return jobs


def expect(
    models: Mapping[str, Models],
    nets: Mapping[float, Program],
    store: WindowStore,
    folds: Sequence[Fold],
    config: RunConfig,
    left: float,
) -> tuple[float, int]:
    """Compiles and times every program; returns seconds and bytes of what is left.

    Args:
        models: Of every system.
        nets: Of the small net.
        store: The run's windows.
        folds: The run's folds.
        config: The run's.
        left: Share of the trainings that are not finished.
    """
    costs: dict[int, Cost] = {}
    made: dict[int, Variables] = {}
    for group in models.values():
        upstream: dict[str, Any] = {}
        for program in group.stages:
            if id(program) not in costs:
                found = measure(program, config, store, upstream)
                costs[id(program)], made[id(program)] = found
            upstream[program.stage] = made[id(program)]
        kept = read_specs(group.teacher, config.cache) if group.teacher.kept else None
        at_once = threads_at_once(group.student, upstream, config, store)
        costs[id(group.student)], _ = measure(
            group.student, config, store, upstream, kept=kept, at_once=at_once
        )
        if group.no_teacher is not None:
            costs[id(group.no_teacher)], _ = measure(
                group.no_teacher, config, store, {}, at_once=at_once
            )
    for program in nets.values():
        at_once = threads_at_once(program, {}, config, store)
        costs[id(program)], _ = measure(program, config, store, {}, at_once=at_once)
    jobs = [(p, costs[id(p)], num) for p, num in trainings(models, nets, config)]
    seconds = total_seconds(jobs, folds, config.train.batch_size)
    disk = len(folds) * sum(num * cost.bytes for _, cost, num in jobs)
    return left * seconds, round(left * disk)


def share_left(
    models: Mapping[str, Models],
    nets: Mapping[float, Program],
    folds: Sequence[Fold],
    config: RunConfig,
    folder: Path,
) -> float:
    """Returns the share of trainings that are not finished yet."""
    total = len(folds) * sum(num for _, num in trainings(models, nets, config))
    done = sum(1 for _ in folder.glob("fold*/**/done.json"))
    return max(0.0, 1 - done / total)


def total_seconds(
    jobs: Sequence[tuple[Program, Cost, int]], folds: Sequence[Fold], batch_size: int
) -> float:
    """Adds up trainings: `(program, its cost, how many a fold)`, over all folds."""
    seconds = 0.0
    for fold in folds:
        per_epoch = max(1, len(fold.train) // batch_size)
        for program, cost, num in jobs:
            epochs = program.num_steps / per_epoch
            judged = len(fold.val) * (epochs + 1) + len(fold.test)
            seconds += num * (program.num_steps * cost.step_s + judged * cost.window_s)
    return seconds


def describe(seconds: float, disk: Any) -> str:
    """Formats a duration and a size for people."""
    minutes = seconds / 60
    span = f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
    return f"{span}, {format_bytes(disk)} of disk"
