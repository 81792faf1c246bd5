"""Latency of one window in a written file, each measurement in its own process.

    python -m eegkd.deploy.latency RUNTIME FILE WINDOW THREADS WARMUP RUNS

The number of threads of XLA is fixed when a process starts, so `measure_latency` starts
one.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.errors import InputError
from eegkd.host.process import num_cores

WARMUP, RUNS = 50, 500


class Latency(NamedTuple):
    """Time of one window, from the array in memory to its probabilities.

    Attributes:
        runtime: "jax" or "onnxruntime".
        threads: Threads that it may use.
        p50_ms: Median.
        p95_ms: 95th percentile.
    """

    runtime: str
    threads: int
    p50_ms: float
    p95_ms: float


def measure_latency(
    runtime: str,
    path: Path,
    window: Path,
    *,
    threads: int,
    warmup: int = WARMUP,
    runs: int = RUNS,
) -> Latency:
    """Measures calls of a file with one window on a CPU.

    Args:
        runtime: "jax" for StableHLO, "onnxruntime" for ONNX.
        path: The file.
        window: An `.npz` file with the inputs of one window, in order.
        threads: 1 keeps the process on one core; `num_cores()` leaves it all.
        warmup: Untimed calls.
        runs: Timed calls.

    Raises:
        InputError: If the process fails.
    """
    args = (runtime, str(path), str(window), *map(str, (threads, warmup, runs)))
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    if threads == 1:
        flags = os.environ.get("XLA_FLAGS", "")
        one = "--xla_cpu_multi_thread_eigen=false"
        environment["XLA_FLAGS"] = f"{flags} {one}".strip()
    with _on_cores(threads):
        process = subprocess.Popen(
            [sys.executable, "-m", "eegkd.deploy.latency", *args],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    out, said = process.communicate()
    if process.returncode:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{path} could not be timed in {runtime}: {last}")
    p50, p95 = 1000 * np.percentile(json.loads(out), [50, 95])
    return Latency(runtime, threads, float(p50), float(p95))


@contextlib.contextmanager
def _on_cores(threads: int) -> Iterator[None]:
    """Binds processes that this thread starts to some cores, where possible."""
    if threads >= num_cores() or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # The first core answers most interrupts.
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _seconds(call: Callable[[], Any], warmup: int, runs: int) -> list[float]:
    for _ in range(warmup):
        call()
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found


def _main(args: Sequence[str]) -> None:
    runtime, path, window, threads, warmup, runs = args
    with np.load(window) as file:
        inputs = [file[name] for name in file.files]
    if runtime == "jax":
        from eegkd.deploy.stablehlo import load_stablehlo

        run: Callable[..., Any] = load_stablehlo(Path(path))
    else:
        from eegkd.deploy.onnx_file import load_onnx

        run = load_onnx(Path(path), threads=int(threads))
    times = _seconds(lambda: np.asarray(run(*inputs)), int(warmup), int(runs))
    sys.stdout.write(json.dumps(times))


if __name__ == "__main__":
    _main(sys.argv[1:])
