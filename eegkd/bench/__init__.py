"""Benchmarks of a training step on this machine."""

from eegkd.bench.bench import run_bench
from eegkd.bench.nested import Choice
from eegkd.bench.setup import draw_store

__all__ = ["Choice", "draw_store", "run_bench"]
