"""Audit of a written graph: it holds the student's arrays alone."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eegkd.deploy.graph import Graph
from eegkd.errors import InputError

MIN_SIZE = 101
"""Arrays below this size are not compared: they may be equal by chance."""


class Audit(NamedTuple):
    """Contents of a graph.

    Attributes:
        inputs: Names of its inputs.
        parameters: Elements of the weights that it was made of.
        constants: Elements of its other large arrays, such as Fourier matrices.
    """

    inputs: tuple[str, ...]
    parameters: int
    constants: int


def audit_graph(
    where: str,
    graph: Graph,
    inputs: Sequence[str],
    arrays: Iterable[np.ndarray],
    foreign: Mapping[str, np.ndarray],
) -> Audit:
    """Checks the inputs and the large arrays of a written graph.

    Arrays are recognised by their values, in any order: a converter may transpose them.

    Args:
        where: The file, for messages.
        graph: Written graph.
        inputs: Names of the file's inputs.
        arrays: Arrays of more than 100 elements that the file holds.
        foreign: Arrays by name that it must not hold: a teacher's, bridges'.

    Raises:
        InputError: If the file takes anything but the graph's inputs, or holds a
            foreign array.
    """
    if tuple(inputs) != tuple(graph.inputs):
        raise InputError(
            f"{where} takes {', '.join(inputs) or 'nothing'} where a finished student "
            f"takes {', '.join(graph.inputs)} alone: the system's `inputs` and "
            "`predict` contradict each other."
        )
    own = {_fingerprint(x) for x in graph.weights.values()}
    others = {_fingerprint(x): n for n, x in foreign.items() if x.size >= MIN_SIZE}
    constants = 0
    for array in arrays:
        mark = _fingerprint(array)
        if array.size < MIN_SIZE or mark in own:
            continue
        if mark in others:
            raise InputError(
                f"{where} would hold {others[mark]}, which is not the student's: the "
                "system's `predict` must read the student's variables alone."
            )
        constants += array.size
    parameters = sum(x.size for x in graph.weights.values())
    return Audit(tuple(inputs), parameters, constants)


def _fingerprint(array: np.ndarray) -> bytes:
    values = np.sort(np.asarray(array, np.float64), axis=None)
    return hashlib.sha256(values.tobytes()).digest()
