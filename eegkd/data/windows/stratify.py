"""Folds of windows that have several labels: groups whole, each label spread evenly."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from sklearn.model_selection import BaseCrossValidator


def iterative_parts(
    has: Bool[np.ndarray, "n k"], num: int, *, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Divides examples of several labels into parts with equal shares of each label.

    The label that the fewest of the examples left have comes first. Each of its
    examples goes to the part that wants most of this label, on a tie to the one that
    wants most examples, then to a random one. Examples without a label come last.

    Args:
        has: True where an example has a label.
        num: Number of parts.
        seed: Seed of the order of examples and of ties.

    Returns:
        The part of each example, from 0.

    References:
        Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data",
        2011, algorithm 1.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(has))
    wanted = np.full(num, len(has) / num)
    wanted_labels = np.tile(has.sum(axis=0) / num, (num, 1))
    parts = np.full(len(has), -1)

    def assign(example: int, column: np.ndarray) -> None:
        best = np.flatnonzero(column >= column.max() - 1e-9)
        best = best[wanted[best] >= wanted[best].max() - 1e-9]
        part = int(rng.choice(best))
        parts[example] = part
        wanted[part] -= 1
        wanted_labels[part] -= has[example]

    while True:
        left = order[parts[order] < 0]
        counts = has[left].sum(axis=0)
        if not counts.any():
            break
        label = int(np.argmin(np.where(counts, counts, len(has) + 1)))
        for example in left[has[left, label]]:
            assign(example, wanted_labels[:, label])
    for example in left:
        assign(example, wanted)
    return parts


class IterativeFolds(BaseCrossValidator):
    """Splits rows of 0/1 labels by `iterative_parts`, groups whole.

    A group has the labels that any of its rows has.
    """

    def __init__(
        self, n_splits: int, *, random_state: int = 0, leaks: bool = False
    ) -> None:
        """Sets the number of folds; with `leaks` rows are divided, not groups."""
        self.n_splits = n_splits
        self.random_state = random_state
        self.leaks = leaks

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Returns the number of folds."""
        return self.n_splits

    def _iter_test_masks(
        self, X: Any = None, y: Any = None, groups: Any = None
    ) -> Iterator[np.ndarray]:
        label = np.asarray(y)
        units = np.arange(len(label)) if self.leaks else np.asarray(groups)
        codes = np.unique(units, return_inverse=True)[1]
        has = np.zeros((codes.max() + 1, label.shape[1]), bool)
        np.logical_or.at(has, codes, label == 1)
        parts = iterative_parts(has, self.n_splits, seed=self.random_state)
        for part in range(self.n_splits):
            yield parts[codes] == part
