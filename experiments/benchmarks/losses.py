"""Times the dearest parts of the losses, here and in other libraries.

Entropic transport between token sets: ours, ott-jax in both its modes, PyTorch in the
log and in the exp domain, POT and geomloss. RKD's angles: by Gram matrices in chunks,
and by all differences. Value, value and gradient, compile time, temporary memory of
the latter as XLA counts it (n/a for PyTorch, which has no such count), and the error
of the first gradient, relative to float64's of the same kind after as many iterations,
f updated first (ott-jax begins with g, geomloss anneals: they agree at convergence).

    pip install -e ".[parity]"
    python -m experiments.benchmarks.losses [--quick] [--json FILE]

All take turns in one process. Factors compare like kinds of gradients: the time of the
fastest form of each library over ours, above 1 where ours is faster.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from eegkd.host.process import keep_freed_memory
from experiments.benchmarks import angles, jax_transport, torch_transport
from experiments.benchmarks.timing import Facts, Runner, take_turns

TRANSPORT = (
    jax_transport.Case("8x256x64", 8, 256, 64),
    jax_transport.Case("32x64x64", 32, 64, 64),
    jax_transport.Case("8x576x64", 8, 576, 64),
    jax_transport.Case("4x2438x256", 4, 2438, 256),
    jax_transport.Case("8x256x64 clustered, 131", 8, 256, 64, 3, 131),
    jax_transport.Case("8x256x64 clustered, 1000", 8, 256, 64, 3, 1000),
)
CASES: Sequence[jax_transport.Case | angles.Case] = (*TRANSPORT, *angles.CASES)
QUICK = (0, len(TRANSPORT))
COLUMNS = {
    "value_ms_median": "value ms",
    "value_grad_ms_median": "v+g ms",
    "value_cpu_ms_median": "value cpu",
    "value_grad_cpu_ms_median": "v+g cpu",
    "temporary_mb": "temp MB",
    "compile_s": "compile s",
    "gradient_error": "grad error",
}
"""Metrics of an implementation, and what heads them; medians, CPU time in ms."""
Key = tuple[str, str]


def time_transport(
    case: jax_transport.Case, *, repeats: int, seconds: float
) -> list[dict]:
    """Times every implementation of transport on one case."""
    tokens = jax_transport.make_tokens(case)
    runners = jax_transport.make_all(tokens)
    others = torch_transport.make_all(*tokens, num_iters=jax_transport.NUM_ITERS)
    runners |= {key: Runner(*pair, {}) for key, pair in others.items()}
    runners = sound(runners)
    kinds = {kind: jax_transport.reference(kind, tokens) for _, kind in runners}
    found = take_turns(runners, repeats=repeats, seconds=seconds)
    for key, facts in found.items():
        facts["gradient_error"] = gradient_error(runners[key], kinds[key[1]])
    factors = compare(found, lambda key: ("eegkd", key[1]))
    return to_rows(case.name, found) + to_rows(case.name, factors)


def time_angles(case: angles.Case, *, repeats: int, seconds: float) -> list[dict]:
    """Times both forms of RKD's angles on one case."""
    runners = angles.make_all(case)
    wanted = angles.reference(case)
    found = take_turns(runners, repeats=repeats, seconds=seconds)
    for key, facts in found.items():
        facts["gradient_error"] = gradient_error(runners[key], wanted)
    factors: dict[Key, Facts] = {}
    for chunk in angles.CHUNKS:
        mine = ("eegkd", f"chunk {chunk}")
        pair = {(angles.NAIVE, mine[1]): found[angles.NAIVE, "-"], mine: found[mine]}
        factors |= compare(pair, lambda key: ("eegkd", key[1]))
    return to_rows(case.name, found) + to_rows(case.name, factors)


def sound(runners: Mapping[Key, Runner]) -> dict[Key, Runner]:
    """Returns those that give numbers, and says which do not."""
    kept = {}
    for key, runner in runners.items():
        try:
            value, grads = runner.both()
            finite = all(np.isfinite(np.asarray(z)).all() for z in (value, *grads))
        except jax.errors.JaxRuntimeError:  # ott-jax's linear solver refuses its NaN
            finite = False
        if finite:
            kept[key] = runner
        else:
            sys.stdout.write(f"{' '.join(key)} is left out: it is not finite here.\n")
    return kept


def compare(
    found: Mapping[Key, Facts], to_mine: Callable[[Key], Key]
) -> dict[Key, Facts]:
    """Divides the median time of the best form of each library by ours."""
    factors: dict[Key, Facts] = {}
    for unit, metric in (("ms", "speedup_median"), ("cpu_ms", "speedup_cpu")):
        column = f"value_grad_{unit}_median"
        for key, facts in found.items():
            name, kind = key
            if name == "eegkd":
                continue
            library = name if name.startswith("torch") else name.split(" ")[0]
            factor = facts[column] / found[to_mine(key)][column]
            best = factors.setdefault((f"{library}/eegkd", kind), {})
            best[metric] = min(factor, best.get(metric, factor))
    return factors


def gradient_error(runner: Runner, wanted: Sequence[np.ndarray]) -> float:
    """Returns the relative error of the first gradient."""
    got = np.asarray(runner.both()[1][0], np.float64)
    return float(np.linalg.norm(got - wanted[0]) / np.linalg.norm(wanted[0]))


def to_rows(case: str, found: Mapping[Key, Facts]) -> list[dict]:
    """Makes rows of the result file."""
    return [
        {
            "case": case,
            "implementation": " ".join(part for part in key if part != "-"),
            "metric": metric,
            "value": float(f"{value:.4g}"),
        }
        for key, facts in found.items()
        for metric, value in facts.items()
    ]


def as_table(rows: Sequence[Mapping]) -> str:
    """Formats a case: one line per implementation, then the factors."""
    lines: dict[str, dict[str, float]] = {}
    for row in rows:
        lines.setdefault(row["implementation"], {})[row["metric"]] = row["value"]
    heads = "".join(f"{head:>11}" for head in COLUMNS.values())
    text = [f"\n{rows[0]['case']:28}{heads}"]
    for name, facts in lines.items():
        if "speedup_median" in facts:
            text.append(
                f"{name:28}{facts['speedup_median']:11.3g} times the time"
                f" ({facts['speedup_cpu']:.3g} by CPU time)"
            )
            continue
        cells = [f"{facts[m]:11.4g}" if m in facts else f"{'n/a':>11}" for m in COLUMNS]
        text.append(f"{name:28}" + "".join(cells))
    return "\n".join(text) + "\n"


def main() -> None:
    """Runs the cases and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="two cases, 5 turns")
    parser.add_argument("--cases", type=int, nargs="+", help="their numbers, from 0")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60.0, help="of a case, about")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
    warnings.filterwarnings("ignore", message="Converting a tensor", module="geomloss")
    keep_freed_memory()  # as every verb does; PyTorch has the same benefit
    chosen = args.cases or (QUICK if args.quick else range(len(CASES)))
    minutes = len(chosen) * (0.5 + args.seconds / 60)
    sys.stdout.write(f"Expected on two idle cores: {minutes:.0f} minutes at most.\n")
    for reason in torch_transport.missing():
        sys.stdout.write(f"{reason}\n")
    options = {"repeats": 5 if args.quick else args.repeats, "seconds": args.seconds}
    rows, start = [], time.perf_counter()
    for case in (CASES[i] for i in chosen):
        if isinstance(case, angles.Case):
            made = time_angles(case, **options)
        else:
            made = time_transport(case, **options)
        sys.stdout.write(as_table(made))
        sys.stdout.flush()
        rows += made
    sys.stdout.write(f"\nTook {(time.perf_counter() - start) / 60:.1f} minutes.\n")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
