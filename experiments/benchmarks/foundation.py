"""Times CBraMod and students of it against PyTorch with braindecode's models.

    python -m experiments.benchmarks.foundation [--quick] [--json FILE]

A step is forward, backward and AdamW, on batches of 8 windows of 16 channels and 10 s:

    CBraMod             cross-entropy, with dropout 0.1 as in fine-tuning, and without
    EEGNet, 2 layers    a student, by cross-entropy and KL to CBraMod's logits: with the
                        teacher in every step (online), or from logits in memory
                        (cached); the second is CBraMod with 2 of its 12 layers

All take turns in one process on the same cores; a ratio is the median of the turns'
ratios, above 1 where this library is faster. CPU time stands beside, which a busy
machine distorts less. Memory is measured in a process of its own each.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from eegkd.host.process import keep_freed_memory, peak_resident

Step = Callable[[], float]
IMPLEMENTATIONS = ("eegkd", "torch")
RATE = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes: of a batch, and how deep teacher and student are."""

    name: str
    batch: int = 8
    n_chans: int = 16
    seconds: int = 10
    num_classes: int = 4
    depth: int = 12
    student_depth: int = 2


class Way(NamedTuple):
    """Models and batch of a step.

    Attributes:
        name: Name of the rows.
        model: "teacher", "eegnet" or "layers".
        teacher: "none", "online" or "cached".
        dropout: Rate in CBraMod, and in the student made like it.
    """

    name: str
    model: str
    teacher: str
    dropout: float = 0.1


CASES = {case.name: case for case in (
    Case(name="16 x 10 s"),
    Case(name="quick", batch=2, n_chans=4, seconds=2, depth=2, student_depth=1),
)}  # fmt: skip
WAYS = {way.name: way for way in (
    Way("CBraMod, dropout", "teacher", "none"),
    Way("CBraMod, no dropout", "teacher", "none", 0.0),
    Way("EEGNet, online", "eegnet", "online"),
    Way("2 layers, online", "layers", "online"),
    Way("EEGNet, cached", "eegnet", "cached"),
    Way("2 layers, cached", "layers", "cached"),
)}  # fmt: skip


def make_batch(case: Case) -> dict[str, np.ndarray]:
    """Draws signals, as large as the models want them, labels and teacher's logits."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.n_chans, RATE * case.seconds)
    return {
        "signal": rng.normal(size=shape).astype(np.float32),
        "label": rng.integers(0, case.num_classes, case.batch).astype(np.int32),
        "logits": rng.normal(size=(case.batch, case.num_classes)).astype(np.float32),
    }


def make_system(case: Case, way: Way) -> Any:
    """Builds teacher and student of the library's parts; the last is trained."""
    from eegkd.losses import Term, cross_entropy, kd_kl
    from eegkd.models import EEGNetConfig
    from eegkd.systems import System, keep_all, small_net

    depth = case.depth if way.model == "teacher" else case.student_depth
    teacher = cbramod_stage(case, "teacher", case.depth, way.dropout)
    ce = Term("ce", cross_entropy, ("student.logits", "batch.label"))
    if way.model == "eegnet":
        cfg = EEGNetConfig(
            n_chans=case.n_chans, n_outputs=case.num_classes, rate=float(RATE)
        )
        student = small_net.make_system(cfg).stages[0]
    else:
        student = cbramod_stage(case, "student", depth, way.dropout)
    if way.teacher == "none":
        stages: Any = (student._replace(terms=(ce,)),)
    else:
        loss = functools.partial(kd_kl, temperature=4.0)
        kd = Term("kd", loss, ("student.logits", "teacher.logits"), 0.5)
        stages = (teacher, student._replace(terms=(ce._replace(weight=0.5), kd)))
    unused: Any = None  # A step predicts nothing.
    return System("benchmark", ("signal",), keep_all, stages, unused)


def cbramod_stage(case: Case, name: str, depth: int, dropout: float) -> Any:
    """Makes a stage of CBraMod with one linear layer on all tokens."""
    import jax

    from eegkd.models import CBraMod, CBraModConfig, apply_params, cbramod_head
    from eegkd.systems import Stage
    from eegkd.typing import Variables

    module = CBraMod(
        CBraModConfig(
            channels=tuple(f"channel {i}" for i in range(case.n_chans)),
            num_patches=case.seconds,
            scale=1.0,
            depth=depth,
            dropout=dropout,
        )
    )
    head = cbramod_head(
        "one_layer", num_patches=case.seconds, num_classes=case.num_classes
    )

    def init(key: Any, batch: Any, upstream: Any) -> Any:
        del upstream
        own, last = jax.random.split(key)
        out, variables = module.init_with_output({"params": own}, batch["signal"][:1])
        params = {
            "backbone": variables["params"],
            "head": head.init(last, out)["params"],
        }
        return Variables(params, {}, {})

    def forward(
        variables: Any, batch: Any, upstream: Any, *, train: bool, key: Any
    ) -> Any:
        del upstream
        params, rngs = variables.params, {} if key is None else {"dropout": key.local}
        out = apply_params(
            module, params["backbone"], batch["signal"], train=train, rngs=rngs
        )
        return {"logits": apply_params(head, params["head"], out)}, variables.state

    return Stage(name, init, forward, ())


def make_jax_step(case: Case, way: Way) -> tuple[Step, float]:
    """Returns a step of this library, and the seconds it took to compile."""
    import jax

    from eegkd.train import OptimConfig, init_state, make_optimiser
    from eegkd.train.parallel import single
    from eegkd.train.step import make_train_step

    system = make_system(case, way)
    stage = system.stages[-1]
    optim = OptimConfig(clip_norm=0.0, warmup_fraction=0.0, schedule="constant")
    tx = make_optimiser(optim, 1000)
    runner = single(lambda axis: make_train_step(system, "student", tx, axis_name=axis))
    batch: Any = make_batch(case)
    kept = batch.pop("logits")
    if way.teacher == "cached":
        batch["cache"] = {"teacher": {"logits": kept}}
    upstream = {}
    if way.teacher == "online":
        init = jax.jit(system.stages[0].init)
        upstream = {"teacher": init(jax.random.key(0), batch, {})}
    variables = jax.jit(stage.init)(jax.random.key(1), batch, upstream)
    given, frozen = runner.place(upstream), runner.place(variables.frozen)
    state = runner.place(init_state(stage, variables, tx, jax.random.key(2)))
    start = time.perf_counter()
    compiled = runner.step.lower(state, frozen, given, runner.put(batch)).compile()  # type: ignore[attr-defined]
    spent = time.perf_counter() - start

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, frozen, given, runner.put(batch))
        return float(metrics["loss"])

    return step, spent


def make_torch_step(case: Case, way: Way) -> tuple[Step, float]:
    """Returns the same of PyTorch, which compiles nothing."""
    import torch

    from eegkd.models import EEGNetConfig
    from experiments.benchmarks import torch_foundation as models

    torch.manual_seed(0)
    batch = make_batch(case)
    sizes = (case.n_chans, RATE * case.seconds, case.num_classes)
    if way.model == "eegnet":
        model = models.make_eegnet(*sizes, EEGNetConfig(rate=float(RATE)).taps)
    else:
        depth = case.depth if way.model == "teacher" else case.student_depth
        model = models.make_cbramod(*sizes, depth, way.dropout)
    guide = None
    if way.teacher == "online":
        guide = models.make_cbramod(*sizes, case.depth, way.dropout).eval()
    logits = batch["logits"] if way.teacher == "cached" else None
    args = (batch["signal"], batch["label"], logits)
    return models.make_torch_step(model, guide, *args), 0.0


def make_step(case: Case, way: Way, implementation: str) -> tuple[Step, float]:
    """Builds the step of one implementation."""
    make = {"eegkd": make_jax_step, "torch": make_torch_step}[implementation]
    return make(case, way)


def time_case(
    case: Case, ways: Sequence[Way], repeats: int, console: Console
) -> list[dict]:
    """Times all steps in turn."""
    built: dict[tuple[Way, str], Step] = {}
    rows = []
    for way in ways:
        for name in IMPLEMENTATIONS:
            step, seconds = make_step(case, way, name)
            step()
            built[way, name] = step
            if seconds:
                rows.append(to_row(way, name, "compile_s", seconds))
        console.print(f"{case.name}: {way.name}: ready")
    times: dict[tuple[Way, str], list[tuple[float, float]]] = {key: [] for key in built}
    for turn in range(repeats + 1):
        for key, step in built.items():
            start, start_busy = time.perf_counter(), time.process_time()
            step()
            took = time.perf_counter() - start, time.process_time() - start_busy
            if turn:  # the first warms up caches and allocators
                times[key].append(took)
    return rows + [row for way in ways for row in summarise(way, times)]


def summarise(
    way: Way, times: Mapping[tuple[Way, str], Sequence[tuple[float, float]]]
) -> list[dict]:
    """Makes rows of one way's times (wall, CPU), a turn each."""
    rows = []
    for name in IMPLEMENTATIONS:
        wall, busy = (1000 * np.array(x) for x in zip(*times[way, name], strict=True))
        rows += [
            to_row(way, name, "step_ms", statistics.median(wall)),
            to_row(way, name, "step_ms_best", min(wall)),
            to_row(way, name, "step_cpu_ms", statistics.median(busy)),
        ]
    for i, metric in enumerate(("speedup", "cpu_speedup")):
        pairs = zip(times[way, "torch"], times[way, "eegkd"], strict=True)
        ratios = [torch[i] / ours[i] for torch, ours in pairs]
        rows.append(to_row(way, "torch / eegkd", metric, statistics.median(ratios)))
    return rows


def measure_memory(case: Case, ways: Sequence[Way]) -> list[dict]:
    """Runs two steps of each in a process of its own."""
    rows = []
    for way in ways:
        for name in IMPLEMENTATIONS:
            command = [sys.executable, "-m", __spec__.name, "--case", case.name]
            command += ["--way", way.name, "--memory", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(to_row(way, name, "peak_mb", float(done.stdout)))
    return rows


def peak_memory(case: Case, way: Way, implementation: str) -> float:
    """Returns by how many MB two steps raise this process above its imports."""
    __import__({"eegkd": "eegkd.train", "torch": "torch"}[implementation])
    before = peak_resident()
    step, _ = make_step(case, way, implementation)
    for _ in range(2):
        step()
    return (peak_resident() - before) / 2**20


def to_row(way: Way, implementation: str, metric: str, value: float) -> dict:
    """Makes one row of the result file."""
    return {
        "case": way.name,
        "implementation": implementation,
        "metric": metric,
        "value": round(float(value), 3),
    }


def main() -> None:
    """Runs the steps and writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="tiny models, 3 turns")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no_memory", action="store_true", help="times alone")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_freed_memory()  # as every verb does; PyTorch has the same benefit
    case = CASES[args.case or ("quick" if args.quick else "16 x 10 s")]
    ways = [WAYS[name] for name in args.way or WAYS]
    if args.memory:
        sys.stdout.write(f"{peak_memory(case, ways[0], args.memory)}\n")
        return
    repeats = min(args.repeats, 3) if args.quick else args.repeats
    rows = time_case(case, ways, repeats, Console(file=sys.stderr))
    if not args.no_memory:
        rows += measure_memory(case, ways)
    table = Table("step", "implementation", "metric", "value", title=case.name)
    for row in sorted(rows, key=lambda row: list(WAYS).index(row["case"])):
        cells = (row[name] for name in ("case", "implementation", "metric"))
        table.add_row(*cells, f"{row['value']:,.4g}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
