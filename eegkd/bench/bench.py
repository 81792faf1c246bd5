"""Time of one training step, and of each of its parts.

Parts are differences of nested compiled programs (`nested.make_chain`), which take
turns, so that a slow moment of the machine meets all of them. After the chain come

- "host": the loop that trainings run (`train.loop.train`) on a batch in memory, minus
  the last program alone: putting batches on the devices, starting steps, reading
  metrics, as far as the devices wait for it;
- "data wait": that loop with the real loader, minus that with a batch in memory.

A part is the median over turns of its differences; the step is the median over turns of
the loop with the loader. What the parts leave of it is the row "other".
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from eegkd.bench.nested import Choice, Nested, without_slots
from eegkd.bench.setup import Setup, prepare_bench
from eegkd.config import RunConfig
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.host.process import peak_resident
from eegkd.ops import count_flops
from eegkd.plan.chips import peak_of
from eegkd.systems import System, get_stage
from eegkd.train.loop import LoopOptions, train
from eegkd.train.optimiser import stage_optimiser
from eegkd.train.state import copy_arrays
from eegkd.train.step import make_train_step

_CALL_S, _LOOP_S = 0.4, 1.0
_READ_AHEAD = 4  # batches that the loader may hold ready before the clock starts

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


def run_bench(
    system: System,
    stage_name: str,
    config: RunConfig,
    store: WindowStore,
    choice: Choice,
    *,
    online: bool = False,
    repeats: int = 7,
    dtype: str = "float32",
    say: Say = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Measures one stage's training step.

    Args:
        system: System of the stage.
        stage_name: Name of the stage.
        config: `train.batch_size`, `train.accumulate`, `train.workers` and `optim`.
        store: Windows to train on, at least one batch.
        choice: The runner and its devices.
        online: Compute earlier stages in the step; else read them from memory.
        repeats: Turns.
        dtype: Number type whose peak the step is compared with.
        say: Receives the expected duration.
        progress: Receives the amount done, and the total.

    Returns:
        The account, as JSON values: `parts` are milliseconds of one step.

    Raises:
        InputError: If the store is smaller than a batch, or the stage is not trained.
    """
    if repeats < 1:
        raise InputError(f"--repeats is at least 1; got {repeats}.")
    stage = get_stage(system, stage_name)
    if not stage.terms:
        raise InputError(f"Stage {stage_name!r} is not trained: name another --stage.")
    peak = peak_of(choice.devices, dtype)
    baseline = peak_resident()
    setup = prepare_bench(system, stage, config, store, choice, online=online)
    try:
        memory, first_s, turns = _measure(
            setup, choice, baseline, repeats, say, progress
        )
    finally:
        setup.loader.close()
    names = [*(nested.part for nested in setup.chain), "host", "data wait"]
    step_s, parts = split_step(names, turns)
    size = config.train.batch_size
    flops = _flops(system, setup, config, online=online)
    rate = flops / step_s
    first = choice.devices[0]
    return {
        "system": system.name,
        "stage": stage_name,
        "earlier_stages": _mode(setup, online=online),
        "runner": choice.name,
        "fully_sharded": choice.fully_sharded,
        "devices": len(choice.devices),
        "platform": first.platform,
        "device_kind": first.device_kind,
        "dtype": dtype,
        "batch_size": size,
        "accumulate": config.train.accumulate,
        "signal_shape": list(store.signal.shape[1:]),
        "repeats": repeats,
        "jax": jax.__version__,
        "windows_per_s": size / step_s,
        "step_ms": 1000 * step_s,
        "parts": parts,
        "flops_step": flops,
        "flops_per_s": rate,
        "peak_flops_per_s": peak.flops if peak else None,
        "peak_source": peak.source if peak else "this chip is not in the table",
        "share_of_peak": rate / peak.flops if peak else None,
        "memory": memory,
        "compile_s": max(0.0, first_s - step_s),
    }


def _measure(
    setup: Setup,
    choice: Choice,
    baseline: int,
    repeats: int,
    say: Say,
    progress: Progress,
) -> tuple[dict[str, Any], float, list[list[float]]]:
    """Returns memory, seconds of the first call, and seconds by turn and program."""
    main, *others = reversed(setup.chain)
    slots = _Slots(setup)
    first_s = slots.call(main, 1)
    step_s = min(slots.call(main, 1) for _ in range(2))
    memory = _memory(choice.devices, baseline)
    calls = min(10, math.ceil(_CALL_S / step_s))
    steps = min(40, max(2, math.ceil(_LOOP_S / step_s)))
    turn_s = step_s * (len(setup.chain) * calls + 2 * steps)
    total = len(others) * first_s + (repeats + 1) * turn_s
    say(
        f"{len(setup.chain)} programs, {repeats} turns: about {total:.0f} s more "
        f"(the step took {first_s:.1f} s to compile and start)."
    )
    num = len(others) + repeats
    for done, nested in enumerate(others):
        progress(done, num)
        slots.call(nested, 1)
    turns = []
    for turn in range(repeats + 1):
        # The first warms up: allocators, and the loader's threads.
        progress(len(others) + max(0, turn - 1), num)
        turns.append(_turn(setup, slots, calls, steps, backwards=turn % 2 == 1))
    progress(num, num)
    return memory, first_s, turns[1:]


def split_step(
    names: list[str], turns: list[list[float]]
) -> tuple[float, list[dict[str, Any]]]:
    """Converts cumulative seconds to parts.

    Args:
        names: Names of the parts, in the order of the programs.
        turns: For every turn the seconds of each program.

    Returns:
        The step's seconds, and rows of `part`, `ms`, `spread_ms` (half the distance
        of the quartiles over turns) and `share`; the last row is "other".
    """
    times = np.array(turns)
    step = float(np.median(times[:, -1]))
    differences = np.diff(times, axis=1, prepend=0.0)
    low, middle, high = np.percentile(differences, [25, 50, 75], axis=0)
    rows = [
        {"part": name, "ms": 1000 * m, "spread_ms": 500 * (h - l), "share": m / step}
        for name, m, l, h in zip(names, middle, low, high, strict=True)
    ]
    rest = step - float(middle.sum())
    other = {"part": "other", "ms": 1000 * rest, "spread_ms": 0.0, "share": rest / step}
    return step, [{k: _plain(v) for k, v in row.items()} for row in (*rows, other)]


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)


class _Slots:
    """States that programs hand on to each other: each donates the one it takes."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._states: dict[str, Any] = {}
        self._given: dict[Any, Any] = {}

    def call(self, nested: Nested, calls: int) -> float:
        """Runs a program `calls` times in a row; returns the seconds of one."""
        state = self._states.pop(nested.slot, None)
        if state is None:
            begin = copy_arrays(self._setup.begin)
            begin = without_slots(begin) if nested.slot == "slim" else begin
            state = nested.runner.place(begin)
        given = self._arguments(nested)
        jax.block_until_ready((state, given))
        metrics, start = None, time.perf_counter()
        for _ in range(calls):
            state, metrics = nested.runner.step(state, *given)
        jax.block_until_ready((state, metrics))
        seconds = (time.perf_counter() - start) / calls
        self._states[nested.slot] = state
        return seconds

    def _arguments(self, nested: Nested) -> Any:
        key = (nested.slot == "cut", nested.online)
        if key not in self._given:
            setup, runner = self._setup, nested.runner
            batch = dict(setup.batch)
            if nested.online:
                batch.pop("cache", None)
            self._given[key] = (
                runner.place(setup.variables.frozen),
                runner.place(dict(setup.upstream) if nested.online else {}),
                runner.put(batch),
            )
        return self._given[key]


class _Clock:
    """Wraps a source of batches; the clock starts when the first is handed out."""

    def __init__(self, source: Callable[[], Any], skip: int) -> None:
        self._source, self._skip = source, skip
        self.start: float | None = None

    def __next__(self) -> Any:
        if self.start is None:
            # Batches read ahead while other programs ran would flatter the loader.
            for _ in range(self._skip):
                self._source()
            batch = self._source()
            self.start = time.perf_counter()
            return batch
        return self._source()

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        del state


def _turn(
    setup: Setup, slots: _Slots, calls: int, steps: int, *, backwards: bool
) -> list[float]:
    """Runs every program once, in one order or the other; cumulative seconds."""
    batch = dict(setup.batch)
    if setup.upstream:
        batch.pop("cache", None)
    jobs: list[Callable[[], float]] = [
        *(lambda nested=nested: slots.call(nested, calls) for nested in setup.chain),
        lambda: _loop(setup, _Clock(lambda: batch, 0), steps),
        lambda: _loop(setup, _Clock(lambda: next(setup.loader), _READ_AHEAD), steps),
    ]
    order = range(len(jobs))
    times = {i: jobs[i]() for i in (reversed(order) if backwards else order)}
    return [times[i] for i in order]


def _loop(setup: Setup, source: _Clock, steps: int) -> float:
    """Trains for a few steps; returns the seconds of one."""
    ends = []
    train(
        setup.chain[-1].runner,
        setup.begin,
        source,
        frozen=setup.variables.frozen,
        upstream=setup.upstream,
        num_steps=steps,
        options=LoopOptions(log_every=steps),
        progress=lambda step: ends.append(time.perf_counter()),
    )
    if source.start is None:
        raise ValueError("The loop took no batch.")
    return (ends[-1] - source.start) / steps


def _flops(system: System, setup: Setup, config: RunConfig, *, online: bool) -> int:
    """Counts the operations of one step over all devices."""
    stage = get_stage(system, setup.chain[0].part)
    tx = stage_optimiser(config.optim, stage)
    step = make_train_step(system, stage.name, tx, accumulate=config.train.accumulate)
    batch = dict(setup.batch)
    if online and setup.upstream:
        batch.pop("cache", None)
    return count_flops(
        step, setup.begin, setup.variables.frozen, dict(setup.upstream), batch
    )


def _mode(setup: Setup, *, online: bool) -> str:
    if not setup.cache:
        return "none"
    return "online" if online else "cached"


def _memory(devices: list[Any], baseline: int) -> dict[str, Any]:
    """Reads memory after the first steps: no other program has run yet."""
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return {
        "host_peak_bytes": peak_resident(),
        "host_peak_bytes_before": baseline,
        "device_peak_bytes": max(peaks) if peaks else None,
    }
