"""Speed of a model on this machine."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def latency(
    fn: Callable[[], Any], *, warmup: int = 50, runs: int = 500
) -> dict[str, float]:
    """Measures single calls after warming up.

    Args:
        fn: Call that waits for its result (`jax.block_until_ready` inside).
        warmup: Untimed calls, compilation included.
        runs: Timed calls.

    Returns:
        `p50_ms`, `p95_ms` and `p99_ms`.

    Raises:
        ValueError: If no call is timed.
    """
    if runs < 1:
        raise ValueError(f"runs must be at least 1; got {runs}.")
    for _ in range(warmup):
        fn()
    times = np.empty(runs)
    for i in range(runs):
        begin = time.perf_counter()
        fn()
        times[i] = time.perf_counter() - begin
    p50, p95, p99 = 1000 * np.percentile(times, [50, 95, 99])
    return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99)}


def throughput(
    fn: Callable[[], Any], batch_size: int, *, warmup: int = 2, seconds: float = 1.0
) -> float:
    """Measures the windows per second of a call that handles `batch_size` windows.

    Args:
        fn: Call that waits for its result.
        batch_size: Windows per call.
        warmup: Untimed calls, compilation included.
        seconds: Calls are repeated for about this long, once at least.
    """
    for _ in range(warmup):
        fn()
    calls, begin = 0, time.perf_counter()
    while True:
        fn()
        calls += 1
        elapsed = time.perf_counter() - begin
        if elapsed >= seconds:
            return calls * batch_size / elapsed
