"""How long a run will take: compiled steps, timed on the shapes of its data."""

import functools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.pipeline.baselines import TRIALS
from eegkd.pipeline.compiled import (
    Key,
    Program,
    inputs_of,
    num_examples,
    program_key,
)
from eegkd.pipeline.jobs import Setting, given_variables
from eegkd.pipeline.schedule import SMALL_NET, Training, Wave, num_repeats, unfinished
from eegkd.pipeline.teacher_choice import read_specs
from eegkd.pipeline.threads import threads_at_once
from eegkd.systems import get_stage
from eegkd.systems.batches import as_recordings, example_batch, init_key
from eegkd.systems.outputs import needs_outputs
from eegkd.train.inputs import Specs
from eegkd.train.state import TrainState, init_state
from eegkd.typing import Variables

TIMED_STEPS = 3
TIMED_WINDOWS = 256


class Cost(NamedTuple):
    """Cost of one training of a program.

    Attributes:
        step_s: Seconds per update.
        window_s: Seconds per judged window.
        bytes: Size of the variables it leaves on disk.
    """

    step_s: float
    window_s: float
    bytes: int


def measure_cost(
    program: Program,
    config: Any,
    upstream: Mapping[str, Variables],
    *,
    kept: Specs | None = None,
    at_once: int = 1,
    num_judged: int = TIMED_WINDOWS,
) -> tuple[Cost, Variables]:
    """Compiles a program's step and prediction, and times a few of each.

    Args:
        program: What to time.
        config: Options of the run.
        upstream: Earlier stages' variables.
        kept: Shapes of kept outputs that a step reads; random ones stand for them.
        at_once: Trainings side by side; a step's time is that of all their steps
            together, divided by their number.
        num_judged: Windows to predict.

    Returns:
        The cost, and untrained finished variables for later stages to be measured on.
    """
    system, key = program.system, jax.random.key(0)
    stage = get_stage(system, program.stage)
    size = program.train.batch_size // jax.process_count()
    batch = dict(example_batch(system, config.signal, size))
    if kept:
        batch["cache"] = _random_outputs(kept, size)
    if stage.scope == "recording":
        batch = dict(as_recordings(batch))
    variables = program.init(init_key(0), dict(upstream))
    place = program.runner.place
    frozen, earlier = place(variables.frozen), place({} if kept else dict(upstream))

    def run(state: TrainState, num: int) -> TrainState:
        for _ in range(num):
            state, metrics = program.runner.step(
                state, frozen, earlier, program.runner.put(batch)
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
    size_bytes = sum(x.nbytes for x in jax.tree.leaves(finished))
    window_s = 0.0
    if program.predict is not None and stage.scope == "row":
        judged = dict(example_batch(system, config.signal, num_judged))
        window_s = _time_prediction(program, finished, judged)
    return Cost(step_s, window_s, size_bytes), finished


def _time_prediction(program: Program, finished: Variables, batch: Any) -> float:
    inputs = inputs_of(program.system, get_stage(program.system, program.stage))(batch)
    jax.block_until_ready(program.predict(finished, inputs))
    start = time.perf_counter()
    jax.block_until_ready(program.predict(finished, inputs))
    return (time.perf_counter() - start) / len(jax.tree.leaves(inputs)[0])


def _random_outputs(specs: Specs, num: int) -> dict[str, dict[str, np.ndarray]]:
    rng, found = np.random.default_rng(0), {}
    for name, (shape, dtype) in specs.items():
        stage, _, key = name.partition(".")
        values = rng.standard_normal((num, *shape)).astype(np.dtype(dtype))
        found.setdefault(stage, {})[key] = values
    return found


def expect(
    waves: Sequence[Wave], setting: Setting, store: WindowStore, folds: Sequence[Fold]
) -> tuple[float, int]:
    """Compiles and times all programs; returns remaining seconds and bytes."""
    num_judged = min(TIMED_WINDOWS, len(store))
    costs = _measure_all(setting, num_judged)
    seconds, disk = 0.0, 0
    for training in every_training(waves, setting, len(folds)):
        program = setting.programs[program_key(training)]
        cost, fold = costs[program_key(training)], folds[training.fold]
        stage = get_stage(program.system, program.stage)
        num = num_examples(stage, store, fold)
        per_epoch = max(1, num // program.train.batch_size)
        epochs = program.num_steps / per_epoch
        judged = len(fold.val) * (epochs + 1) + len(fold.test)
        seconds += program.num_steps * cost.step_s + judged * cost.window_s
        disk += cost.bytes
    share = share_left(waves, setting, len(folds))
    return share * seconds, round(share * disk)


def _measure_all(setting: Setting, num_judged: int) -> dict[Key, Cost]:
    config, costs = setting.config, dict[Key, Cost]()
    made: dict[Key, Variables] = {}
    for variant, system in setting.systems.items():
        owner = "" if setting.same_teacher else variant
        upstream: dict[str, Variables] = {}
        skipped = setting.teachers[variant].external_stages(system)
        for stage in system.stages[:-1]:
            key = owner, stage.name, ""
            if stage.name in skipped:
                continue
            if not stage.terms:
                upstream[stage.name] = given_variables(system, stage, config, upstream)
                continue
            if key not in costs:
                costs[key], made[key] = (
                    measure_cost(
                        setting.programs[key], config, upstream, num_judged=num_judged
                    )
                    if not needs_outputs(system, stage)
                    else _untimed(setting.programs[key], upstream)
                )
            upstream[stage.name] = made[key]
        teacher = setting.teachers[variant]
        kept = read_specs(teacher, config.cache) if teacher.kept else None
        student = system.stages[-1].name
        program = setting.programs[variant, student, ""]
        at_once = threads_at_once(program, upstream, config)
        costs[variant, student, ""], _ = measure_cost(
            program, config, upstream, kept=kept, at_once=at_once, num_judged=num_judged
        )
        for key, other in setting.programs.items():
            if key not in costs and key[0] == variant and key[2]:
                costs[key], _ = measure_cost(
                    other,
                    config,
                    {},
                    at_once=threads_at_once(other, {}, config),
                    num_judged=num_judged,
                )
    return costs


def _untimed(
    program: Program, upstream: Mapping[str, Variables]
) -> tuple[Cost, Variables]:
    """Returns a cost without times, for a stage whose inputs do not exist yet."""
    variables = program.finish(program.init(init_key(0), dict(upstream)))
    size = sum(x.nbytes for x in jax.tree.leaves(variables))
    return Cost(0.0, 0.0, size), variables


def every_training(
    waves: Sequence[Wave], setting: Setting, num_folds: int
) -> list[Training]:
    """Lists all trainings; repeats of a tuned row stand for the chosen trial."""
    repeated = [
        Training(fold, SMALL_NET, "student", seed=seed, trial=TRIALS[0].name)
        for fold in range(num_folds)
        for seed in range(1, num_repeats(setting.config) + 1)
    ]
    return [*(training for wave in waves for training in wave), *repeated]


def share_left(waves: Sequence[Wave], setting: Setting, num_folds: int) -> float:
    """Returns the share of trainings that are not finished yet."""
    total = len(every_training(waves, setting, num_folds))
    known = sum(len(wave) for wave in waves)
    done = known - len(unfinished(waves, setting.folder))
    repeated = setting.folder.glob(f"fold*/{SMALL_NET}/seed[1-9]*/done.json")
    return max(0.0, 1 - (done + len(list(repeated))) / total)


def describe(seconds: float, disk: Any) -> str:
    """Formats a duration and a size for people."""
    minutes = seconds / 60
    span = f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
    return f"{span}, {disk / 2**20:.0f} MiB of disk"
