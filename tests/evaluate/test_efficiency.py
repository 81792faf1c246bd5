import itertools
import time

import pytest

from eegkd.evaluate import efficiency
from eegkd.evaluate.efficiency import latency, throughput


def test_latency_skips_the_warm_up():
    calls = itertools.count()

    def slow_at_first():
        time.sleep(0.05 if next(calls) < 2 else 0.001)

    found = latency(slow_at_first, warmup=2, runs=20)
    assert next(calls) == 22
    assert 1.0 <= found["p50_ms"] < 25
    assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    with pytest.raises(ValueError, match="at least 1; got 0"):
        latency(slow_at_first, runs=0)


def test_throughput_counts_windows(monkeypatch):
    clock = itertools.count(0.0, 0.25)
    monkeypatch.setattr(efficiency.time, "perf_counter", lambda: next(clock))
    calls = itertools.count()
    assert throughput(lambda: next(calls), 32, seconds=1.0) == 32 * 4 / 1.0
    assert next(calls) == 2 + 4
