"""Times students trained together in one program against one after another.

A step is one update of every member: on cached teacher outputs for the students of
DistilCLIP-EEG, on labels for EEGNet. Both ways take turns in one process, on the same
batches, and both fetch the losses. Memory is what the compiler says a program takes.
`speedup` above 1 means that the sweep is the faster way.

    python -m experiments.benchmarks.sweep [--members 1 4 16] [--json FILE]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.config import RunConfig, preset_config
from eegkd.host.process import keep_freed_memory
from eegkd.models import EEGNetConfig
from eegkd.pipeline.compiled import Program, make_program
from eegkd.systems import SignalConfig, get_stage, small_net
from eegkd.systems.batches import init_key, start_stage
from eegkd.systems.entry import find
from eegkd.train.parallel import single
from eegkd.train.state import TrainState, init_state, stack
from eegkd.train.step import upstream_tensors
from eegkd.train.sweep import member_mesh
from eegkd.typing import Variables

SIGNAL = SignalConfig(n_chans=19, n_times=200, rate=100.0)
CASES = ("small_net", "quickstart", "small", "paper")
_STEPS = 100


class Given(NamedTuple):
    """Start of the members of one case: states, frozen variables, batches."""

    program: Program
    states: list[TrainState]
    frozen: list[Any]
    batches: list[dict[str, Any]]


class Way(NamedTuple):
    """One way of training the members: a step of all, and what it cost to build."""

    step: Callable[[], np.ndarray]
    compile_s: float
    mib: float


def build(case: str, num_members: int, batch: int) -> Given:
    """Draws every member's start, seed and batch."""
    rng = np.random.default_rng(0)
    earlier: dict[str, Variables] = {}
    if case == "small_net":
        config = RunConfig(signal=SIGNAL)
        net = EEGNetConfig(n_chans=19, n_outputs=2, rate=SIGNAL.rate)
        system = small_net.make_system(net)
    else:
        entry = find("distilclip_eeg")
        config = preset_config(entry, case)
        config = type(config)(**(vars(config) | {"signal": SIGNAL}))
        system = entry.make_system(config)
    shape = (batch, SIGNAL.n_chans, SIGNAL.n_times)
    for stage in system.stages[:-1]:
        made = start_stage(system, stage, SIGNAL, earlier)
        earlier[stage.name] = jax.jit(stage.finish)(made) if stage.finish else made
    sizes = [_STEPS * config.train.batch_size]
    program = make_program(system, "student", config, sizes)
    stage = get_stage(system, "student")
    read = jax.jit(lambda given, b: upstream_tensors(system, stage, given, b))
    given = Given(program, [], [], [])
    for seed in range(num_members):
        start = program.init(init_key(seed), earlier)
        given.states.append(init_state(stage, start, program.tx, jax.random.key(seed)))
        given.frozen.append(start.frozen)
        one: dict[str, Any] = {
            "signal": rng.normal(size=shape).astype(np.float32),
            "label": rng.integers(0, 2, batch).astype(np.int32),
        }
        if earlier:
            one["cache"] = jax.device_get(read(earlier, one))
        given.batches.append(one)
    return given


def one_by_one(given: Given) -> Way:
    """Builds the step of one member, called for each in turn."""
    runner = single(given.program.many().make_step)
    states = [runner.place(jax.tree.map(lambda x: x.copy(), s)) for s in given.states]
    frozen = [runner.place(f) for f in given.frozen]
    start = time.perf_counter()
    jitted: Any = runner.step
    step = jitted.lower(states[0], frozen[0], {}, given.batches[0]).compile()
    compile_s = time.perf_counter() - start

    def run() -> np.ndarray:
        losses = []
        for i, batch in enumerate(given.batches):
            states[i], metrics = step(states[i], frozen[i], {}, runner.put(batch))
            losses.append(metrics["loss"])
        return np.array(jax.device_get(losses))

    return Way(run, compile_s, _mib(step))


def together(given: Given) -> Way:
    """Builds the step of all members."""
    program = given.program.many().sweep
    mesh = member_mesh(program.devices[:1], len(given.states))
    device = program.devices[0]
    state = jax.device_put(stack(given.states), device)
    frozen = jax.device_put(stack(given.frozen), device)

    def put() -> Any:
        host = jax.tree.map(lambda *xs: np.stack(xs), *given.batches)
        return jax.device_put(host, device)

    start = time.perf_counter()
    step = program.step(mesh, True, False).lower(state, frozen, {}, put()).compile()
    compile_s = time.perf_counter() - start
    held = [state]

    def run() -> np.ndarray:
        held[0], metrics = step(held[0], frozen, {}, put())
        return np.asarray(metrics["loss"])

    return Way(run, compile_s, _mib(step))


def time_case(case: str, members: int, *, batch: int, repeats: int) -> list[dict]:
    """Times both ways in turn, after a first step that must agree."""
    given = build(case, members, batch)
    ways = {"sequential": one_by_one(given), "vmap": together(given)}
    losses = [way.step() for way in ways.values()]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    times: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start, start_busy = time.perf_counter(), time.process_time()
            way.step()
            times[name].append(1000 * (time.perf_counter() - start))
            busy[name].append(1000 * (time.process_time() - start_busy))
    rows = []
    for name, way in ways.items():
        median = statistics.median(times[name])
        rows += [
            (name, "step_ms_median", median),
            (name, "step_ms_best", min(times[name])),
            (name, "step_cpu_ms", statistics.median(busy[name])),
            (name, "updates_per_s", 1000 * members / median),
            (name, "compile_s", way.compile_s),
            (name, "program_mib", way.mib),
        ]
    for label, fn in (("median", statistics.median), ("best", min)):
        ratio = fn(times["sequential"]) / fn(times["vmap"])
        rows.append(("sequential/vmap", f"speedup_{label}", ratio))
    return [
        {
            "case": f"{case} x{members}",
            "implementation": name,
            "metric": metric,
            "value": round(value, 3),
        }
        for name, metric, value in rows
    ]


def _mib(compiled: Any) -> float:
    used = compiled.memory_analysis()
    whole = used.argument_size_in_bytes + used.output_size_in_bytes
    return (whole + used.temp_size_in_bytes - used.alias_size_in_bytes) / 2**20


def main() -> None:
    """Runs the cases and writes the rows."""
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=None)
    parser.add_argument("--members", nargs="+", type=int, default=None)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5 if on_cpu else 30)
    args = parser.parse_args()
    keep_freed_memory()
    cases = args.cases or (["small_net", "quickstart"] if on_cpu else list(CASES))
    rows = []
    for case in cases:
        for members in args.members or ([4] if on_cpu else [4, 16]):
            found = time_case(case, members, batch=args.batch, repeats=args.repeats)
            for row in found:
                sys.stdout.write("{case:16} {implementation:16} ".format(**row))
                sys.stdout.write("{metric:16} {value:10.2f}\n".format(**row))
            sys.stdout.flush()
            rows += found
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
