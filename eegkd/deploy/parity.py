"""The gate before a file is kept: it must predict what the student predicts."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.deploy.graph import Graph
from eegkd.errors import InputError
from eegkd.evaluate.metrics import above_half, most_probable

TOLERANCE = 1e-4
"""Largest difference of a probability. Other orders of float32 sums differ by 1e-6 or
so; a graph that was converted wrongly, by far more."""


class Parity(NamedTuple):
    """Comparison of a written file with the student.

    Attributes:
        windows: Number of real windows that were compared.
        batch_sizes: Batch sizes of the calls.
        max_difference: Largest difference of a probability.
        agreement: Share of windows with the same likeliest class; of several labels,
            share of equal decisions at 0.5.
    """

    windows: int
    batch_sizes: tuple[int, ...]
    max_difference: float
    agreement: float


def reference(graph: Graph, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Computes a graph's probabilities on a CPU, in full float32.

    A GPU's matrix products may round more than the file that is to be compared.
    """
    with _on_cpu():
        return np.asarray(jax.jit(graph.fn)(*inputs.values()))


def check_parity(
    where: str,
    run: Callable[..., Any],
    want: np.ndarray,
    inputs: Mapping[str, np.ndarray],
    *,
    tolerance: float = TOLERANCE,
    multilabel: bool = False,
) -> Parity:
    """Compares a reloaded file with the student on real windows.

    Args:
        where: The file, for messages.
        run: The file, as a function of the inputs in their order.
        want: The student's probabilities, [n, k].
        inputs: Arrays by name, in order, [n, ...].
        tolerance: Largest difference of a probability.
        multilabel: True if a window may have several classes.

    Raises:
        InputError: If the file cannot be run, or returns another shape or other
            numbers.
    """
    num = len(want)
    sizes = tuple(sorted({1, min(3, num), num}))
    worst, same = 0.0, 1.0
    for size in sizes:
        part = [array[:size] for array in inputs.values()]
        try:
            with _on_cpu():
                got = np.asarray(run(*part))
        except Exception as error:
            raise _refusal(where, f"cannot be run ({_first_line(error)})") from error
        if got.shape != want[:size].shape:
            raise _refusal(
                where,
                f"returns the shape {got.shape} where the student returns "
                f"{want[:size].shape}",
            )
        difference = float(np.abs(got - want[:size]).max())
        if not difference <= tolerance:  # Also where it is NaN.
            raise _refusal(
                where,
                f"differs from the student by {difference:.2g} on {size} real "
                f"window(s), and {tolerance:g} is allowed",
            )
        worst = max(worst, difference)
        decide = above_half if multilabel else most_probable
        same = float(np.mean(decide(got) == decide(want[:size])))
    return Parity(num, sizes, worst, same)


def _on_cpu() -> AbstractContextManager[Any]:
    return jax.default_device(jax.devices("cpu")[0])


def _refusal(where: str, what: str) -> InputError:
    return InputError(
        f"{where} was not kept: read back, it {what}. Nothing was written; name the "
        "other formats with --format, or change the operation that does not convert "
        "(a spectrum has to be a product with Fourier matrices)."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else repr(error)
