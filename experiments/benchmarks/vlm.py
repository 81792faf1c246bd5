"""Times decoders: reading, writing with a cache, and LoRA steps, here and in PyTorch.

    python -m experiments.benchmarks.vlm [--quick] [--json FILE]

On a CPU, a LLaMA and a Qwen2 of width 512 and 8 layers in float32, beside transformers'
models of the same sizes (attention "sdpa", its default) and PEFT's adapters. All of a
case take turns in one process on the same cores; a ratio is the median of the turns'
ratios, above 1 where this library is faster. CPU time stands beside, which a busy
machine distorts less. Memory is measured in a process of its own each.

    prefill             reads the prompts, and keeps their keys and values
    prefill and decode  the same, and then writes: tokens per second are those of the
                        writing alone, and "cache / recomputed" is what the cache gains
    decode, recomputed  one new token of each row, reading again all that stand before
                        one in the middle of the text
    LoRA step           adapters on all linear layers but the head, cross-entropy, AdamW

`--large` compiles the step of 13 billion parameters for 8 devices (nothing is
allocated) and compares `eegkd plan` with the compiler's account. Where a CUDA GPU is at
hand, steps of LLaVA 7B and 13B run on it (`vlm_gpu`).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from eegkd.host.process import keep_freed_memory, peak_resident
from experiments.benchmarks import vlm_cases as cases
from experiments.benchmarks import vlm_torch
from experiments.benchmarks.vlm_cases import Case

OURS, TORCH = "eegkd", "torch"
Times = dict[tuple[str, str], list[tuple[float, float]]]


def make_call(case: Case, way: str, name: str) -> tuple[Any, dict[str, float]]:
    """Builds one way of one implementation."""
    if name == TORCH:
        return vlm_torch.make_call(case, way)
    from experiments.benchmarks import vlm_ours

    return vlm_ours.make_call(case, way)


def implementations(way: str) -> list[str]:
    """Lists the implementations of a way."""
    return [OURS] if any(vlm_torch.missing(way)) else [OURS, TORCH]


def time_case(
    case: Case, ways: Sequence[str], repeats: int, console: Console
) -> list[dict]:
    """Times all ways in turn."""
    built: dict[tuple[str, str], Callable[[], Any]] = {}
    rows = []
    for way in ways:
        for name in implementations(way):
            call, facts = make_call(case, way, name)
            call()
            built[way, name] = call
            rows += [to_row(case, way, name, *fact) for fact in facts.items()]
        console.print(f"{case.name}: {way}: ready")
    times: Times = {key: [] for key in built}
    for turn in range(repeats + 1):
        for key, call in built.items():
            start, start_busy = time.perf_counter(), time.process_time()
            call()
            took = time.perf_counter() - start, time.process_time() - start_busy
            if turn:  # the first warms up caches and allocators
                times[key].append(took)
    for way in ways:
        rows += summarise(case, way, times)
    return rows + compare_cache(case, times)


def summarise(case: Case, way: str, times: Times) -> list[dict]:
    """Makes rows of one way's times (wall, CPU), a turn each."""
    rows = []
    names = implementations(way)
    for name in names:
        wall, busy = (1000 * np.array(x) for x in zip(*times[way, name], strict=True))
        middle = statistics.median(wall)
        rows += [
            to_row(case, way, name, "ms", middle),
            to_row(case, way, name, "ms_best", min(wall)),
            to_row(case, way, name, "cpu_ms", statistics.median(busy)),
        ]
        if way == cases.GENERATE:
            middle -= 1000 * statistics.median(x for x, _ in times[cases.PREFILL, name])
        speed = 1000 * cases.count_tokens(case, way) / middle
        rows.append(to_row(case, way, name, "tokens_per_s", speed))
    if TORCH in names:
        for i, metric in enumerate(("speedup", "cpu_speedup")):
            pairs = zip(times[way, TORCH], times[way, OURS], strict=True)
            ratios = [torch[i] / ours[i] for torch, ours in pairs]
            middle = statistics.median(ratios)
            rows.append(to_row(case, way, "torch / eegkd", metric, middle))
    return rows


def compare_cache(case: Case, times: Times) -> list[dict]:
    """Divides the time of a token that is recomputed by that of one from the cache."""
    rows = []
    for name in (OURS, TORCH):
        keys = [(way, name) for way in (cases.GENERATE, cases.PREFILL, cases.RECOMPUTE)]
        if not all(key in times for key in keys):
            continue
        # The first token comes of the prefill.
        gains = [
            again[0] * (case.new - 1) / (both[0] - read[0])
            for both, read, again in zip(*(times[key] for key in keys), strict=True)
        ]
        middle = statistics.median(gains)
        rows.append(to_row(case, cases.GENERATE, name, "cache / recomputed", middle))
    return rows


def measure_memory(case: Case, ways: Sequence[str], quick: bool) -> list[dict]:
    """Runs two calls of each in a process of its own."""
    rows = []
    for way in ways:
        for name in implementations(way):
            command = [sys.executable, "-m", __spec__.name, "--memory", name]
            command += ["--case", case.name, "--way", way]
            command += ["--quick"] if quick else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(to_row(case, way, name, "peak_mb", float(done.stdout)))
    return rows


def peak_memory(case: Case, way: str, name: str) -> float:
    """Returns by how many MB two calls raise this process above its imports."""
    __import__("eegkd.train" if name == OURS else "transformers")
    before = peak_resident()
    call, _ = make_call(case, way, name)
    for _ in range(2):
        call()
    return (peak_resident() - before) / 2**20


def to_row(
    case: Case, way: str, implementation: str, metric: str, value: float
) -> dict[str, Any]:
    """Makes one row of the result file."""
    return {
        "case": f"{case.name}: {way}",
        "implementation": implementation,
        "metric": metric,
        "value": round(float(value), 3),
    }


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows as a table a model."""
    tables: dict[str, Table] = {}
    for row in rows:
        model, _, way = str(row["case"]).rpartition(": ")
        if model not in tables:
            columns = ("step", "implementation", "metric", "value")
            tables[model] = Table(*columns, title=model or None)
        cells = (way, row["implementation"], row["metric"])
        tables[model].add_row(*cells, f"{row['value']:,.4g}")
    for table in tables.values():
        Console().print(table)


def run_part(module: str, *args: str) -> list[dict]:
    """Runs a part in a process of its own, whose last line is its rows."""
    command = [sys.executable, "-m", f"{__package__}.{module}", *args]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs the cases and writes the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="tiny models, 3 turns")
    parser.add_argument("--way", choices=cases.WAYS, action="append", help="only this")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no_memory", action="store_true", help="times alone")
    parser.add_argument("--large", action="store_true", help="compile 13B too")
    parser.add_argument("--gpu", action="store_true", help="the GPU's part alone")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=(OURS, TORCH), help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_freed_memory()  # as every verb does; PyTorch has the same benefit
    chosen = cases.QUICK if args.quick else cases.CASES
    ways = args.way or list(cases.WAYS)
    if args.memory:
        (case,) = (case for case in chosen if case.name == args.case)
        sys.stdout.write(f"{peak_memory(case, ways[0], args.memory)}\n")
        return
    if cases.GENERATE in ways and cases.PREFILL not in ways:
        ways = [cases.PREFILL, *ways]
    console = Console(file=sys.stderr)
    absent = dict.fromkeys(name for way in ways for name in vlm_torch.missing(way))
    if absent and not args.gpu:
        console.print(f"Left out for want of {', '.join(absent)}: the PyTorch peers.")
    rows: list[dict] = []
    for case in () if args.gpu else chosen:
        repeats = min(args.repeats, 3) if args.quick else args.repeats
        rows += time_case(case, ways, repeats, console)
        rows += [] if args.no_memory else measure_memory(case, ways, args.quick)
    if args.large:
        rows += run_part("vlm_large")
    rows += run_part("vlm_gpu", *(["--quick"] if args.quick else []))
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
