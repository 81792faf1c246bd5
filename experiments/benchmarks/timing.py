"""Functions that take turns: medians of their times, their memory and compile time."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

Key = TypeVar("Key", bound=Hashable)
Facts = dict[str, float]
_FEWEST = 3


class Runner(NamedTuple):
    """One implementation on one case; both functions return when they are done.

    Attributes:
        value: Returns the sum over the batch.
        both: Returns that and the gradients by both arguments.
        facts: Compile seconds and temporary memory, where there are such.
    """

    value: Callable[[], Any]
    both: Callable[[], tuple[Any, tuple[Any, Any]]]
    facts: Facts


def compile_jax(total: Callable[..., Any], x: Any, y: Any) -> Runner:
    """Compiles `total(x, y)`, and its gradients by both."""
    value = jax.jit(total).lower(x, y).compile()
    start = time.perf_counter()
    both = jax.jit(jax.value_and_grad(total, (0, 1))).lower(x, y).compile()
    facts = {"compile_s": time.perf_counter() - start}
    if (memory := both.memory_analysis()) is not None:
        facts["temporary_mb"] = memory.temp_size_in_bytes / 2**20
    ready = jax.block_until_ready
    return Runner(lambda: ready(value(x, y)), lambda: ready(both(x, y)), facts)


def take_turns(
    runners: Mapping[Key, Runner], *, repeats: int, seconds: float
) -> dict[Key, Facts]:
    """Times all in turn, so that a busy machine slows them alike.

    Each timed call follows one that is not: the threads of the library before, which
    wait for work by spinning, have gone to rest then, and caches hold what it reads.
    CPU time stands beside, which a busy machine distorts less; it adds up threads.

    Args:
        runners: By any name.
        repeats: Turns after the first, which warms up caches and allocators.
        seconds: About how long to go on; no fewer than three turns.
    """
    times: dict[tuple[Key, str], list[float]] = {}
    began, turn = time.perf_counter(), 0
    while turn <= repeats:
        for key, runner in runners.items():
            for what, fn in (("value", runner.value), ("value_grad", runner.both)):
                fn()
                start, start_busy = time.perf_counter(), time.process_time()
                fn()
                took = time.perf_counter() - start
                busy = time.process_time() - start_busy
                if turn:
                    times.setdefault((key, f"{what}_ms"), []).append(1000 * took)
                    times.setdefault((key, f"{what}_cpu_ms"), []).append(1000 * busy)
        turn += 1
        if turn > _FEWEST and time.perf_counter() - began > seconds:
            break
    found: dict[Key, Facts] = {
        key: dict(runner.facts) for key, runner in runners.items()
    }
    for (key, metric), values in times.items():
        found[key][f"{metric}_median"] = statistics.median(values)
        found[key][f"{metric}_best"] = min(values)
    return found
