"""The variance that other trainings of the same recipes would add to a difference.

Units (subjects) tell how far other people would move a mean, and nothing of how far
another random start would: within a fold a training is the same for all its subjects.
Of a fold f with n_f units, and models x_ik of unit i and seed k,

    V_f = var_k(mean_i x_ik),    s_f^2 = sum_ik (x_ik - x_i. - x_.k + x..)^2 / df,

both pooled over the rows of one structure, so that V_f - s_f^2 / n_f is the variance of
trainings without what units and seeds share, which the error over units has already.
A fold of a single unit (leave one subject out) has all of it there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

from eegkd.evaluate.paired import Trainings
from eegkd.evaluate.rows import STUDENT_SHAPED


class Spread(NamedTuple):
    """Variance of trainings in one fold, pooled over rows of one structure.

    Attributes:
        weight: Weight of the fold in the mean over folds.
        between: `V_f`, the variance over seeds of the fold's figure.
        within: The part of it that units would change: `s_f^2 / n_f`.
        df: Degrees of freedom of `between`.
        df_within: Degrees of freedom of `within`.
    """

    weight: float
    between: float
    within: float
    df: float
    df_within: float

    @property
    def variance(self) -> float:
        """Variance of one training."""
        return max(0.0, self.between - self.within)


def structure_of(row: str, same_shape: Sequence[str] = ()) -> str:
    """Returns the name of the structure that a row's models have.

    Args:
        row: Name of the row.
        same_shape: Further rows whose models are built as the student is.
    """
    return "student" if row in STUDENT_SHAPED or row in same_shape else row


def pooled_spread(
    rows: Sequence[Float64[np.ndarray, "n _seed"]], weight: float
) -> Spread | None:
    """Pools the variance of trainings of one fold; None without a row of two seeds.

    Args:
        rows: The figures of the fold's units, by seed, of each row of one structure.
        weight: Weight of the fold.
    """
    between = within = df = df_within = 0.0
    for values in rows:
        # A unit without a figure tells nothing of that row.
        own = values[np.isfinite(values).all(axis=1)]
        n, seeds = own.shape
        if seeds < 2 or n < 2:
            continue
        means = own.mean(axis=0)
        between += float(((means - means.mean()) ** 2).sum())
        rest = own - own.mean(axis=1, keepdims=True) - means + own.mean()
        within += float((rest**2).sum()) / n
        df += seeds - 1
        df_within += (seeds - 1) * (n - 1)
    if not df:
        return None
    return Spread(weight, between / df, within / df_within, df, df_within)


def spreads_of_units(
    values: Mapping[str, Float64[np.ndarray, "n _seed"]],
    folds: Shaped[np.ndarray, " n"],
    same_shape: Sequence[str] = (),
) -> dict[str, list[Spread]]:
    """Estimates the variance of trainings of each structure in each fold.

    Args:
        values: The metric of the units used, by seed, of each row.
        folds: Fold of each unit.
        same_shape: Further rows whose models are built as the student is.
    """
    found: dict[str, list[Spread]] = {}
    for fold in np.unique(folds):
        own = folds == fold
        by_structure: dict[str, list[np.ndarray]] = {}
        for row, x in values.items():
            name = structure_of(row, same_shape)
            by_structure.setdefault(name, []).append(x[own])
        for name, rows in by_structure.items():
            spread = pooled_spread(rows, float(own.mean()))
            if spread is not None:
                found.setdefault(name, []).append(spread)
    return found


def trainings_of(
    spreads: Mapping[str, Sequence[Spread]], sides: Sequence[tuple[str, int]]
) -> Trainings:
    """Computes the variance of trainings of a difference of two rows.

        sum_f w_f^2 max(0, V_f - s_f^2 / n_f) (1 / K + 1 / K')

    A structure without an estimate adds nothing: a teacher is the fold's one, a linear
    model has no random start.

    Args:
        spreads: By structure, one per fold that tells.
        sides: Structure and number of seeds of each of the two rows.
    """
    shares: dict[str, float] = {}
    for structure, seeds in sides:
        shares[structure] = shares.get(structure, 0.0) + 1 / seeds
    variance, spread, least = 0.0, 0.0, float("inf")
    for structure, share in shares.items():
        for own in spreads.get(structure, ()):
            if own.variance:
                scale = own.weight**2 * share
                variance += scale * own.variance
                parts = own.between**2 / own.df, own.within**2 / own.df_within
                spread += scale**2 * sum(parts)
                least = min(least, own.df)
    return Trainings(variance, spread, least)
