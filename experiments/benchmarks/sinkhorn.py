"""Times entropic transport between token sets, by value and gradient of both.

Ours stands beside ott-jax in both its modes, PyTorch in the log and in the exp domain,
and POT and geomloss where they are installed. All take turns in one process, so that a
busy machine slows them alike. Gradients are compared with ours in float64, which the
tests hold to finite differences.

    python -m experiments.benchmarks.sinkhorn [--quick] [--json FILE]
"""

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.losses import token_ot
from eegkd.ops.pairwise import pairwise_sqeuclidean
from experiments.benchmarks import torch_transport

NUM_ITERS = 100
KINDS = ("envelope", "implicit", "unrolled")


class Case(NamedTuple):
    """Token sets [batch, n, width] and [batch, m, width], and epsilon.

    Attributes:
        ratio: The largest cost over epsilon; None is 0.05 of the mean cost for epsilon.
    """

    name: str
    batch: int
    n: int
    m: int
    width: int = 64
    ratio: float | None = None


CASES = (
    Case("8x256x64", 8, 256, 64),
    Case("32x64x64", 32, 64, 64),
    Case("8x576x64", 8, 576, 64),
    Case("4x2438x256", 4, 2438, 256),
    Case("8x256x64 clustered, 131", 8, 256, 64, 3, 131),
    Case("8x256x64 clustered, 1000", 8, 256, 64, 3, 1000),
)


class Runner(NamedTuple):
    """One implementation on one case; both functions return when they are done.

    Attributes:
        value: Returns the sum over the batch.
        both: Returns that and the gradients by both token sets.
        facts: Compile seconds and temporary memory, where there are such.
    """

    value: Callable[[], Any]
    both: Callable[[], tuple[Any, tuple[Any, Any]]]
    facts: dict[str, float]


def make_tokens(case: Case) -> tuple[np.ndarray, np.ndarray, float]:
    """Draws unit tokens, or clustered ones in 3-d, which converge slowly."""
    rng = np.random.default_rng(0)
    shapes = (case.batch, case.n, case.width), (case.batch, case.m, case.width)
    if case.ratio is None:
        x, y = (rng.normal(size=shape) for shape in shapes)
        x, y = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    else:
        centres = 3 * rng.normal(size=(4, case.width))
        x, y = (
            centres[rng.integers(0, 4, shape[:2])] + 0.3 * rng.normal(size=shape)
            for shape in shapes
        )
    x, y = x.astype(np.float32), y.astype(np.float32)
    cost = np.asarray(pairwise_sqeuclidean(jnp.asarray(x), jnp.asarray(y)))
    ratio = case.ratio
    return x, y, float(0.05 * cost.mean() if ratio is None else cost.max() / ratio)


def make_jax(loss: Callable[..., Any], x, y, epsilon: float) -> Runner:
    """Compiles the sum of `loss(x, y, epsilon)`, and its gradients."""
    total = lambda x, y: jnp.sum(loss(x, y, epsilon))
    x, y = jnp.asarray(x), jnp.asarray(y)
    value = jax.jit(total).lower(x, y).compile()
    start = time.perf_counter()
    both = jax.jit(jax.value_and_grad(total, (0, 1))).lower(x, y).compile()
    facts = {"compile_s": time.perf_counter() - start}
    if (memory := both.memory_analysis()) is not None:
        facts["temporary_mb"] = memory.temp_size_in_bytes / 2**20
    ready = jax.block_until_ready
    return Runner(lambda: ready(value(x, y)), lambda: ready(both(x, y)), facts)


def ours(
    kind: Literal["envelope", "implicit", "unrolled"],
) -> Callable[..., Any]:
    """Returns our loss; "envelope" differentiates the value it is of."""
    value = "kl" if kind == "envelope" else "transport"
    return lambda x, y, epsilon: token_ot(
        x, y, epsilon=epsilon, num_iters=NUM_ITERS, value=value, gradient=kind
    )


def ott(kind: str, *, lse_mode: bool) -> Callable[..., Any]:
    """Returns ott-jax's own form, as its documentation writes it."""
    from ott.geometry import costs, pointcloud
    from ott.solvers import linear

    def one(x, y, epsilon):
        geometry = pointcloud.PointCloud(
            x, y, cost_fn=costs.SqEuclidean(), epsilon=epsilon
        )
        out = linear.solve(
            geometry,
            lse_mode=lse_mode,
            min_iterations=NUM_ITERS,
            max_iterations=NUM_ITERS,
        )
        return out.reg_ot_cost if kind == "envelope" else out.primal_cost

    return jax.vmap(one, in_axes=(0, 0, None))


def make_runners(case: Case, x, y, epsilon: float) -> dict[tuple[str, str], Runner]:
    """Builds every implementation there is, by name and kind of gradient."""
    found = {("eegkd", kind): make_jax(ours(kind), x, y, epsilon) for kind in KINDS}
    for kind in KINDS[:2]:
        for mode, lse_mode in (("log", True), ("exp", False)):
            loss = ott(kind, lse_mode=lse_mode)
            found[f"ott {mode}", kind] = make_jax(loss, x, y, epsilon)
    others = torch_transport.make_all(x, y, epsilon, num_iters=NUM_ITERS)
    return found | {key: Runner(*pair, {}) for key, pair in others.items()}


def time_case(case: Case, *, repeats: int) -> list[dict]:
    """Times all in turn; CPU time beside it, which a busy machine distorts less."""
    x, y, epsilon = make_tokens(case)
    runners = make_runners(case, x, y, epsilon)
    times: dict[tuple, list[float]] = {}
    for turn in range(repeats + 1):
        for key, runner in runners.items():
            for what, fn in (("value", runner.value), ("value_grad", runner.both)):
                start, start_busy = time.perf_counter(), time.process_time()
                fn()
                took = time.perf_counter() - start
                busy = time.process_time() - start_busy
                if turn:  # the first warms up caches and allocators
                    times.setdefault((*key, what, "ms"), []).append(1000 * took)
                    times.setdefault((*key, what, "cpu_ms"), []).append(1000 * busy)
    rows = []
    for key, runner in runners.items():
        facts = dict(runner.facts)
        for what in ("value", "value_grad"):
            facts[f"{what}_ms_median"] = statistics.median(times[*key, what, "ms"])
            facts[f"{what}_ms_best"] = min(times[*key, what, "ms"])
            facts[f"{what}_cpu_ms"] = statistics.median(times[*key, what, "cpu_ms"])
        facts["gradient_error"] = gradient_error(runner, key[1], x, y, epsilon)
        rows += [to_row(case, " ".join(key), *fact) for fact in facts.items()]
    return rows + ratios(case, times)


def ratios(case: Case, times: dict[tuple, list[float]]) -> list[dict]:
    """Compares medians with the best of each library with that kind of gradient."""
    rows = []
    units = (("ms", "speedup_median"), ("cpu_ms", "speedup_cpu"))
    for kind, (unit, metric) in itertools.product(KINDS, units):
        mine = statistics.median(times["eegkd", kind, "value_grad", unit])
        best: dict[str, float] = {}
        for (name, *rest), values in times.items():
            library = name if name.startswith("torch") else name.split()[0]
            if rest == [kind, "value_grad", unit] and library != "eegkd":
                median = statistics.median(values)
                best[library] = min(median, best.get(library, median))
        rows += [
            to_row(case, f"{library}/eegkd {kind}", metric, value / mine)
            for library, value in best.items()
        ]
    return rows


def gradient_error(runner: Runner, kind: str, x, y, epsilon: float) -> float:
    """Returns the relative error of the first gradient."""
    got = np.asarray(runner.both()[1][0], np.float64)
    want = reference(kind, x.tobytes(), x.shape, y.tobytes(), y.shape, epsilon)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@functools.lru_cache(maxsize=3)
def reference(kind, x, x_shape, y, y_shape, epsilon) -> np.ndarray:
    """Computes the gradient of a kind in float64."""
    x, y = (
        np.frombuffer(z, np.float32).reshape(shape).astype(np.float64)
        for z, shape in ((x, x_shape), (y, y_shape))
    )
    with jax.enable_x64(True):
        return np.asarray(make_jax(ours(kind), x, y, epsilon).both()[1][0])


def to_row(case: Case, implementation: str, metric: str, value: float) -> dict:
    """Makes one row of the result file."""
    return {
        "case": case.name,
        "implementation": implementation,
        "metric": metric,
        "value": float(f"{value:.4g}"),
    }


def main() -> None:
    """Runs the cases and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="the first case alone")
    parser.add_argument("--cases", type=int, nargs="+", help="their numbers, from 0")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
    chosen = args.cases or range(1 if args.quick else len(CASES))
    rows = []
    for case in (CASES[i] for i in chosen):
        made = time_case(case, repeats=5 if args.quick else args.repeats)
        for row in made:
            sys.stdout.write("{case:25} {implementation:24} ".format(**row))
            sys.stdout.write("{metric:20} {value:10.4g}\n".format(**row))
        rows += made
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
