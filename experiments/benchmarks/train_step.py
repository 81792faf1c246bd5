"""Times Conformer training steps against the same model in PyTorch.

A step is forward, backward (cross-entropy on a linear head) and AdamW. Both
implementations take turns in one process; memory is measured in one of its own each.

    python -m experiments.benchmarks.train_step [--quick] [--json FILE]
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.host.process import keep_freed_memory, peak_resident
from eegkd.models.conformer import Conformer, ConformerConfig

SMALL = ConformerConfig(dim=64, ffn_mult=2, depth=4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model and the shape of its batches."""

    name: str
    cfg: ConformerConfig
    batch: int
    n_times: int


CASES = {
    case.name: case
    for case in (
        Case(name="small teacher", cfg=SMALL, batch=64, n_times=512),
        Case(
            name="small student",
            cfg=dataclasses.replace(SMALL, depth=2),
            batch=64,
            n_times=512,
        ),
        Case(name="paper teacher", cfg=ConformerConfig(), batch=32, n_times=800),
        Case(name="paper student", cfg=ConformerConfig(depth=4), batch=32, n_times=800),
    )
}
IMPLEMENTATIONS = ("jax", "torch")
Step = Callable[[], float]


def make_jax_step(case: Case) -> tuple[Step, float]:
    """Returns a step that trains on one batch, and the seconds it took to compile."""
    import jax
    import jax.numpy as jnp
    import optax

    x, label = make_batch(case)
    model, tx = Conformer(case.cfg), optax.adamw(1e-4, weight_decay=0.05)

    def init(key):
        params = model.init(key, x)["params"]
        head = jnp.zeros((case.cfg.dim, 2))
        return (params, head), tx.init((params, head))

    def update(params, slots, x, label, key):
        def loss(params):
            rngs = {"dropout": key}
            out: Any = model.apply({"params": params[0]}, x, train=True, rngs=rngs)
            logits = out["pooled"] @ params[1]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return losses.mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, slots = tx.update(gradients, slots, params)
        return optax.apply_updates(params, updates), slots, value

    params, slots = jax.jit(init)(jax.random.key(0))
    keys = itertools.cycle(jax.random.split(jax.random.key(1), 100))
    x, label = jnp.asarray(x), jnp.asarray(label)
    start = time.perf_counter()
    jitted = jax.jit(update, donate_argnums=(0, 1))
    compiled = jitted.lower(params, slots, x, label, jax.random.key(0)).compile()
    seconds = time.perf_counter() - start
    state = [params, slots]

    def step() -> float:
        *state[:], value = compiled(*state, x, label, next(keys))
        return float(value)

    return step, seconds


def make_torch_step(case: Case) -> tuple[Step, float]:
    """Returns the same of PyTorch, which compiles nothing."""
    import torch

    from experiments.benchmarks.torch_conformer import TorchConformer

    torch.manual_seed(0)
    model, head = TorchConformer(case.cfg), torch.nn.Linear(case.cfg.dim, 2)
    parameters = [*model.parameters(), *head.parameters()]
    tx = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05, fused=True)
    x, label = (torch.from_numpy(array) for array in make_batch(case))

    def step() -> float:
        tx.zero_grad()
        logits = head(model(x)["pooled"])
        loss = torch.nn.functional.cross_entropy(logits, label)
        loss.backward()
        tx.step()
        return loss.item()

    return step, 0.0


def make_batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Draws a signal and labels."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.cfg.n_chans, case.n_times)
    return rng.normal(size=shape).astype(np.float32), rng.integers(0, 2, case.batch)


def make_step(case: Case, implementation: str) -> tuple[Step, float]:
    """Builds the step of one implementation."""
    make = {"jax": make_jax_step, "torch": make_torch_step}[implementation]
    return make(case)


def time_case(case: Case, *, repeats: int) -> list[dict]:
    """Times both in turn; the ratio is of medians, above 1 where JAX is faster."""
    built = {name: make_step(case, name) for name in IMPLEMENTATIONS}
    times: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    busy: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for turn in range(repeats + 1):
        for name, (step, _) in built.items():
            start, start_busy = time.perf_counter(), time.process_time()
            step()
            if turn:  # the first warms up caches and allocators
                times[name].append(1000 * (time.perf_counter() - start))
                busy[name].append(1000 * (time.process_time() - start_busy))
    rows = []
    for name, values in times.items():
        rows += [
            (name, "step_ms_median", statistics.median(values)),
            (name, "step_ms_best", min(values)),
            (name, "step_cpu_ms", statistics.median(busy[name])),
            (name, "windows_per_s", 1000 * case.batch / statistics.median(values)),
        ]
    rows.append(("jax", "compile_s", built["jax"][1]))
    medians, best = (
        {name: fn(values) for name, values in times.items()}
        for fn in (statistics.median, min)
    )
    rows.append(("torch/jax", "speedup_median", medians["torch"] / medians["jax"]))
    rows.append(("torch/jax", "speedup_best", best["torch"] / best["jax"]))
    return [to_row(case, *row) for row in rows]


def measure_memory(case: Case) -> list[dict]:
    """Runs two steps of each implementation in a process of its own."""
    rows = []
    for name in IMPLEMENTATIONS:
        command = [sys.executable, "-m", __spec__.name, "--memory", case.name, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(to_row(case, name, "peak_mb", float(done.stdout)))
    return rows


def peak_memory(case: Case, implementation: str) -> float:
    """Returns by how many MB two steps raise this process above its imports."""
    __import__({"jax": "optax", "torch": "torch"}[implementation])
    before = peak_resident()
    step, _ = make_step(case, implementation)
    for _ in range(2):
        step()
    return (peak_resident() - before) / 2**20


def to_row(case: Case, implementation: str, metric: str, value: float) -> dict:
    """Makes one row of the result file."""
    return {
        "case": case.name,
        "implementation": implementation,
        "metric": metric,
        "value": round(value, 3),
    }


def main() -> None:
    """Runs the cases and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="small models, 5 steps")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_freed_memory()  # as every verb does; PyTorch has the same benefit
    if args.memory:
        case, implementation = args.memory
        sys.stdout.write(f"{peak_memory(CASES[case], implementation)}\n")
        return
    cases = [case for case in CASES.values() if "small" in case.name or not args.quick]
    rows = []
    for case in cases:
        rows += time_case(case, repeats=5 if args.quick else args.repeats)
        rows += measure_memory(case)
        for row in (row for row in rows if row["case"] == case.name):
            sys.stdout.write("{case:14} {implementation:10} ".format(**row))
            sys.stdout.write("{metric:16} {value:10.2f}\n".format(**row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
