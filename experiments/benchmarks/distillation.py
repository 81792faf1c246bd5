"""Times distillation steps of a Conformer pair, here and in PyTorch.

A teacher step trains the large model by cross-entropy. A student step adds
KL to the teacher's logits, or that and the mean squared difference of tokens
("features"); the teacher runs in the step ("online"), or its outputs are read from
memory and sent to the device with every batch ("cached"). All of a case take turns in
one process on the same cores; `pmap` and `shard_map` share them as two devices.

    python -m experiments.benchmarks.distillation [--quick] [--case NAME] [--json FILE]
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from eegkd.host.process import force_cpu_devices, keep_freed_memory
from eegkd.models.conformer import ConformerConfig
from eegkd.systems import SignalConfig, System, add_terms, distilclip_eeg
from eegkd.systems.distilclip_eeg.config import (
    DistilClipConfig,
    KdConfig,
    StudentConfig,
    TextConfig,
)
from experiments.benchmarks.train_step import SMALL, Case, make_batch, to_row

Step = Callable[[], float]
POOL = 4  # batches of cached outputs in memory, from which each step gathers its own


class Way(NamedTuple):
    """One way to make a step.

    Attributes:
        name: Name of the rows.
        stage: "teacher" or "student".
        terms: "ce", "logits" (and ce) or "features" (and both).
        teacher: "online", "cached", or "resident" (cached, and never sent again).
        runner: "single", "pmap", "shard_map", or "torch".
    """

    name: str
    stage: str
    terms: str
    teacher: str
    runner: str


def ways(case: Case) -> Iterator[Way]:
    """Lists what is timed; the paper's size only where it decides something."""
    steps = (
        ("student alone", "student", "ce", "cached"),
        ("student, logits online", "student", "logits", "online"),
        ("student, logits cached", "student", "logits", "cached"),
        ("student, features online", "student", "features", "online"),
        ("student, features cached", "student", "features", "cached"),
        ("student, features resident", "student", "features", "resident"),
        ("teacher", "teacher", "ce", "cached"),
    )
    few = ("student alone", "student, logits online", "student, logits cached")
    for name, stage, terms, teacher in steps:
        if case.name == "paper" and name not in (*few, "student, features cached"):
            continue
        runners = ["single"] if "resident" in name else ["single", "torch"]
        if case.name != "paper" and name in ("teacher", *few[1:]):
            runners += ["pmap", "shard_map"]
        for runner in runners:
            yield Way(name, stage, terms, teacher, runner)


CASES = {
    case.name: case
    for case in (
        Case(name="quick", cfg=SMALL, batch=16, n_times=256),
        Case(name="small", cfg=SMALL, batch=64, n_times=512),
        Case(name="paper", cfg=ConformerConfig(), batch=32, n_times=800),
    )
}


def make_systems(case: Case) -> dict[str, System]:
    """Builds the pair with linear heads, by the terms of the student."""
    from eegkd.losses import Term

    config = DistilClipConfig(
        signal=SignalConfig(n_chans=case.cfg.n_chans, n_times=case.n_times),
        eeg=case.cfg,
        text=TextConfig(source="none"),
        student=StudentConfig(depth=case.cfg.depth // 2, hard="ce"),
        kd=KdConfig(),
    )
    logits = distilclip_eeg.make_system(config)
    inputs = ("student.tokens", "teacher.tokens")
    teacher, student = logits.stages
    alone = student._replace(terms=student.terms[:1])
    return {
        "ce": logits._replace(stages=(teacher, alone)),
        "logits": logits,
        "features": add_terms(logits, "student", Term("tokens", token_mse, inputs)),
    }


def token_mse(student: Any, teacher: Any) -> Any:
    """Computes the mean squared difference of tokens, per example."""
    return ((student - teacher) ** 2).mean(axis=(1, 2))


def make_jax_step(case: Case, way: Way, teacher: Any) -> Step:
    """Returns a step that gathers, sends and trains on one batch."""
    import jax

    from eegkd.systems import get_stage
    from eegkd.train import OptimConfig, init_state, make_optimiser
    from eegkd.train.parallel import make_runner
    from eegkd.train.step import make_train_step, upstream_tensors

    system = make_systems(case)[way.terms]
    stage = get_stage(system, way.stage)
    optim = OptimConfig(clip_norm=0.0, warmup_fraction=0.0, schedule="constant")
    tx = make_optimiser(optim, 1000)

    def make(axis: str | None) -> Any:
        return make_train_step(system, way.stage, tx, axis_name=axis)

    devices = jax.devices()[: 1 if way.runner == "single" else 2]
    runner = make_runner(way.runner, make, devices)
    signal, label = make_batch(case)
    batch = {"signal": signal, "label": label.astype(np.int32)}
    upstream = {"teacher": teacher} if way.stage == "student" else {}
    variables = jax.jit(stage.init)(jax.random.key(1), batch, upstream)
    pool: Any = {}
    if upstream and way.teacher != "online" and way.terms != "ce":
        outputs = upstream_tensors(system, stage, upstream, batch)
        pool = jax.tree.map(lambda x: np.concatenate([x] * POOL), outputs)
    given = runner.place(upstream if way.teacher == "online" else {})
    state = runner.place(init_state(stage, variables, tx, jax.random.key(2)))
    frozen, rng = runner.place(variables.frozen), np.random.default_rng(0)

    def gather() -> Any:
        if not pool:
            return runner.put(batch)
        rows = rng.permutation(POOL * case.batch)[: case.batch]
        return runner.put(batch | {"cache": jax.tree.map(lambda x: x[rows], pool)})

    resident = gather() if way.teacher == "resident" else None

    def step() -> float:
        nonlocal state
        sent = gather() if resident is None else resident
        state, metrics = runner.step(state, frozen, given, sent)
        return float(metrics["loss"])

    return step


def make_step(case: Case, way: Way, teacher: Any) -> Step:
    """Builds one step."""
    student = dataclasses.replace(case.cfg, depth=case.cfg.depth // 2)
    if way.runner != "torch":
        return make_jax_step(case, way, teacher)
    import torch

    from experiments.benchmarks.torch_pair import Classifier, make_torch_step

    x, label = (torch.from_numpy(array) for array in make_batch(case))
    cached = None
    if way.teacher == "cached" and way.terms != "ce":
        with torch.no_grad():
            logits, tokens = Classifier(case.cfg, 2).eval()(x)
        cached = {"logits": logits, "tokens": tokens}
    return make_torch_step(
        case.cfg if way.stage == "teacher" else student,
        case.cfg if way.teacher == "online" else None,
        x,
        label,
        cached=cached,
        features=way.terms == "features",
    )


def time_case(case: Case, repeats: int, console: Console) -> list[dict]:
    """Times all ways in turn; a ratio is the median of the turns' ratios."""
    import jax

    system, batch = make_systems(case)["logits"], make_batch(case)
    first = {"signal": batch[0], "label": batch[1].astype(np.int32)}
    teacher = jax.jit(system.stages[0].init)(jax.random.key(0), first, {})
    times: dict[tuple[str, str], list[float]] = {}
    built = {}
    for way in ways(case):
        start = time.perf_counter()
        step = built[way.name, way.runner] = make_step(case, way, teacher)
        step()
        spent = time.perf_counter() - start
        console.print(f"{case.name}: {way.name}, {way.runner}: ready in {spent:.0f} s")
    for turn in range(repeats + 1):
        for key, step in built.items():
            start = time.perf_counter()
            step()
            if turn:  # the first warms up caches and allocators
                times.setdefault(key, []).append(time.perf_counter() - start)
    rows = []
    for (name, runner), seconds in times.items():
        implementation = f"{name} ({runner})"
        middle = statistics.median(seconds)
        rows += [
            to_row(case, implementation, "step_ms", 1000 * middle),
            to_row(case, implementation, "step_ms_best", 1000 * min(seconds)),
            to_row(case, implementation, "steps_per_s", 1 / middle),
        ]
    for name, metric, over, under in comparisons(times):
        ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
        rows.append(to_row(case, name, metric, statistics.median(ratios)))
    return [*rows, *overheads(case, times), *bounds(case)]


def comparisons(times: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Names the ratios that the measured ways allow."""
    single = "single"
    for name, runner in times:
        if runner == single and (name, "torch") in times:
            yield name, "torch_over_eegkd", (name, "torch"), (name, single)
        if runner in ("pmap", "shard_map"):
            yield f"{name} ({runner})", "over_single", (name, runner), (name, single)
    for terms in ("logits", "features"):
        cached = (f"student, {terms} cached", single)
        online = (f"student, {terms} online", single)
        if cached in times:
            yield cached[0], "over_student_alone", cached, ("student alone", single)
        if cached in times and online in times:
            yield cached[0], "speedup_over_online", online, cached


def overheads(case: Case, times: Any) -> Iterator[dict]:
    """Splits what cached features cost into their loss and their way to the device."""
    names = ("logits cached", "features resident", "features cached")
    found = [times.get((f"student, {name}", "single")) for name in names]
    if not all(found):
        return
    logits, resident, cached = (np.array(values) for values in found)
    for metric, values in (
        ("loss_ms", resident - logits),
        ("gather_and_send_ms", cached - resident),
    ):
        value = 1000 * float(np.median(values))
        yield to_row(case, "features, overhead", metric, value)


def bounds(case: Case) -> Iterator[dict]:
    """What caching can save at most: the operations that it leaves out."""
    import jax

    from eegkd.ops import count_flops
    from eegkd.systems import get_stage
    from eegkd.train import OptimConfig, init_state, make_optimiser
    from eegkd.train.step import make_train_step, upstream_tensors

    system = make_systems(case)["logits"]
    stage = get_stage(system, "student")
    tx = make_optimiser(OptimConfig(), 1000)
    signal, label = make_batch(case)
    batch = {"signal": signal, "label": label.astype(np.int32)}
    key = jax.random.key(0)
    teacher = jax.eval_shape(system.stages[0].init, key, batch, {})
    upstream = {"teacher": teacher}
    own = jax.eval_shape(stage.init, key, batch, upstream)
    state = jax.eval_shape(lambda v: init_state(stage, v, tx, jax.random.key(0)), own)
    cache = jax.eval_shape(
        lambda up, batch: upstream_tensors(system, stage, up, batch), upstream, batch
    )
    step = make_train_step(system, "student", tx)
    online = count_flops(step, state, own.frozen, upstream, batch)
    cached = count_flops(step, state, own.frozen, {}, batch | {"cache": cache})
    yield to_row(case, "online / cached", "flops_ratio", online / cached)


def main() -> None:
    """Runs the cases and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="tiny batches, 5 turns")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    keep_freed_memory()  # as every verb does; PyTorch has the same benefit
    force_cpu_devices(2)
    names = args.case or (["quick"] if args.quick else ["small", "paper"])
    repeats = min(args.repeats, 5) if args.quick else args.repeats
    console = Console(file=sys.stderr)
    rows = []
    for name in names:
        rows += time_case(CASES[name], repeats, console)
        table = Table("way", "metric", "value", title=f"{name}: distillation steps")
        for row in (row for row in rows if row["case"] == name):
            table.add_row(row["implementation"], row["metric"], f"{row['value']:,.4g}")
        Console().print(table)
        if args.json:  # after every case: the next may take long
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
