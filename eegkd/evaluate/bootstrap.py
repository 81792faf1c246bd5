"""The bootstrap over subjects: draws within strata, and BCa intervals of them.

References:
    Efron 1987, Better bootstrap confidence intervals, equations 6.6 and 7.3.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import stats

from eegkd.evaluate.paired import ALPHA

DRAWS = 2_000
LEAST_STRATUM = 5
"""Label sets of fewer subjects are drawn from together: each alone hardly varies."""


def label_strata(has: Bool[np.ndarray, "u k"]) -> Int64[np.ndarray, " u"]:
    """Numbers subjects by the set of their labels; rare sets share a number."""
    _, codes, counts = np.unique(has, axis=0, return_inverse=True, return_counts=True)
    codes = codes.reshape(-1)
    return np.where(counts[codes] < LEAST_STRATUM, len(counts), codes)


def draw_subjects(
    strata: Int64[np.ndarray, " n"], *, seed: int, num: int = DRAWS
) -> Float64[np.ndarray, "d n"]:
    """Draws as many subjects from each stratum as it has.

    Returns:
        How often each draw holds each subject.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((num, len(strata)))
    for stratum in np.unique(strata):
        own = np.flatnonzero(strata == stratum)
        chosen = rng.integers(0, len(own), (num, len(own)))
        counts = np.zeros((num, len(own)))
        np.add.at(counts, (np.arange(num)[:, None], chosen), 1)
        weights[:, own] = counts
    return weights


def bca_interval(
    whole: float,
    drawn: Float64[np.ndarray, " d"],
    without: Float64[np.ndarray, " n"],
    strata: Int64[np.ndarray, " n"],
    *,
    alpha: float = ALPHA,
) -> tuple[float, float]:
    """Computes the bias-corrected and accelerated interval of a stratified bootstrap.

    Undefined draws are left out. The acceleration is that of several samples, each
    stratum one: with `u = (n_s - 1) (mean of its leave-one-outs - leave-one-out)`,
    `a = sum_s sum(u^3) / n_s^3 / (6 (sum_s sum(u^2) / n_s^2)^1.5)`.

    Where draws lie so far to one side (as of average precision, which repeated subjects
    raise) that this interval does not hold the estimate, it is the normal one,
    `whole +- z sd(drawn)`.

    Args:
        whole: The estimate.
        drawn: It, of each draw.
        without: It, without each subject.
        strata: Stratum of each subject.
        alpha: One less the coverage.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(whole) or len(drawn) < 2:
        return float("nan"), float("nan")
    # Equal values in another order of addition must tie.
    near = 1e-12 * max(1.0, abs(whole))
    below = ((drawn < whole - near).sum() + (drawn <= whole + near).sum()) / 2
    share = np.clip(below / len(drawn), 0.5 / len(drawn), 1 - 0.5 / len(drawn))
    shift = stats.norm.ppf(share)
    third = second = 0.0
    for stratum in np.unique(strata):
        own = without[(strata == stratum) & np.isfinite(without)]
        n = len(own)
        if n > 1:
            u = (n - 1) * (own.mean() - own)
            third += (u**3).sum() / n**3
            second += (u**2).sum() / n**2
    skew = third / (6 * second**1.5) if second > near**2 else 0.0
    z = shift + stats.norm.ppf([alpha / 2, 1 - alpha / 2])
    at = stats.norm.cdf(shift + z / (1 - skew * z))
    low, high = np.quantile(drawn, at)
    if not low <= whole <= high:
        half = stats.norm.ppf(1 - alpha / 2) * drawn.std(ddof=1)
        low, high = whole - half, whole + half
    return float(low), float(high)
