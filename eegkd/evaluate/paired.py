"""Two models over the same units: tests, intervals, detectable effects, verdicts.

A unit is a subject, or a fold where a corpus names none. A verdict is from the
two-sided paired t-test, whose error holds units and trainings, and its sign from the
mean difference. Registered comparisons, and those of a cohort, must also pass the test
by exchange: exact sign flips over units, or swaps within the cohort's subjects.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy import optimize, stats

Verdict = Literal["better", "worse", "undetectable"]
Unit = Literal["subject", "fold", "cohort"]
ALPHA = 0.05
POWER = 0.8
LEAST_UNITS = 6
_EXACT_UNITS = 20
_MONTE_CARLO = 100_000
_MOST_LISTED = 5
_MOST_RATIO = 100.0
"""Spread over difference from which nobody would ask for the units needed."""


class Trainings(NamedTuple):
    """Variance of a difference that other trainings of the same recipes would add.

    Attributes:
        variance: Its estimate, in the metric's square.
        spread: Sum of `part^2 / degrees of freedom` over the independent estimates that
            it is made of, as Satterthwaite's formula takes them.
        df: Least degrees of freedom of those.
    """

    variance: float = 0.0
    spread: float = 0.0
    df: float = float("inf")


NO_TRAININGS = Trainings()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The student against another model, over the same units.

    Attributes:
        mean_difference: Student minus other.
        low: Lower end of the 95 % interval; NaN below two units.
        high: Upper end.
        p_t: Two-sided test of the mean over its error, by the t distribution.
        p_signflip: Two-sided test by exchange: of signs, or of a cohort's predictions.
        p_adjusted: The p-value that decides, after Holm where it is in a family.
        level: Level at which it would have been found.
        mde: Minimum detectable effect of the t-test at that level and 80 % power.
        error: Standard error of `mean_difference`, of units and trainings.
        df: Its degrees of freedom.
        trainings_error: The part of it that trainings add to units.
        seed_error: Standard error of `mean_difference` over seeds, units held fixed;
            NaN where neither model has two.
        n: Units used; of a cohort, its subjects.
        num_excluded: Units left out because the metric is undefined there.
        unit: Unit of the test.
        verdict: Verdict on the student; None where none is possible.
        reason: Why there is no verdict; "" where there is one.
        registered: True for a comparison that "distillation helps" rests on.
        exploratory: True where the verdict is outside what was registered.
        no_room: True where the teacher itself is not above the other model by the
            detectable effect; None where that is unknown.
        differences: One difference per unit, where they are too few for a verdict.
        needed: Units at which a difference as large would be found, at the spread seen.
    """

    mean_difference: float
    low: float
    high: float
    p_t: float
    p_signflip: float
    p_adjusted: float
    level: float = ALPHA
    mde: float
    error: float
    df: float
    trainings_error: float = 0.0
    seed_error: float
    n: int
    num_excluded: int
    unit: Unit = "subject"
    verdict: Verdict | None = None
    reason: str = ""
    registered: bool = False
    exploratory: bool = False
    no_room: bool | None = None
    differences: tuple[float, ...] | None = None
    needed: int | None = None

    @property
    def p(self) -> float:
        """The p-value of the tests that it has to pass."""
        both = self.registered or self.unit == "cohort"
        return max(self.p_t, self.p_signflip) if both else self.p_t


def t_interval(values: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Computes the 95 % interval `mean +- t sd / sqrt(n)`; NaN below two values."""
    n = len(values)
    if n < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(1 - ALPHA / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def sign_flip_p(differences: Float64[np.ndarray, " n"], *, seed: int = 0) -> float:
    """Computes the two-sided p-value of the mean under random signs.

    All `2^n` sign patterns up to 20 units, else 100,000 random ones, the observed one
    counted among them.
    """
    observed = abs(differences.sum())
    # Equal sums in another order of addition must tie.
    reach = observed - 1e-9 * np.abs(differences).sum()
    if len(differences) <= _EXACT_UNITS:
        sums = np.zeros(1)
        for value in differences:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= reach))
    rng = np.random.default_rng(seed)
    signs = rng.choice(np.array([-1, 1], np.float32), (_MONTE_CARLO, len(differences)))
    hits = np.count_nonzero(np.abs(signs @ differences) >= reach)
    return float((1 + hits) / (1 + _MONTE_CARLO))


@lru_cache(maxsize=4096)
def _noncentrality(df: float, alpha: float, power: float) -> float:
    # t^2 is noncentral F; SciPy's noncentral t has NaN tails where this has none.
    if df > 1e6:
        return float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    limit = stats.f.isf(alpha, 1, df)

    def shortfall(shift: float) -> float:
        return float(stats.ncf.sf(limit, 1, df, shift**2)) - power

    upper = 4.0
    while shortfall(upper) < 0:
        upper *= 2
    found = optimize.root_scalar(shortfall, bracket=(1e-3, upper), method="brentq")
    return found.root


def detectable_effect(
    error: float, df: float | int, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Computes the mean difference that a t-test finds with this power, two-sided.

    From the noncentral t distribution; with infinite degrees of freedom the effect is
    `(z_{1 - alpha/2} + z_power) error`.

    Args:
        error: Standard error of the difference.
        df: Degrees of freedom of the error.
        alpha: Level of the test.
        power: Probability of finding it.
    """
    if not np.isfinite(error) or not df > 0:
        return float("nan")
    # Rounded, because each new value costs a search of its root.
    return error * _noncentrality(float(f"{df:.3g}"), alpha, power)


def minimum_detectable_effect(
    sd: float, n: int, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Computes the mean difference that a paired t-test over units alone finds.

    From the noncentral t distribution, two-sided; NaN below two units.
    """
    return detectable_effect(sd / max(n, 1) ** 0.5, n - 1.0, alpha=alpha, power=power)


def seed_error(
    student: Float64[np.ndarray, "n seed"], other: Float64[np.ndarray, "n seed2"]
) -> float:
    """Computes the standard error, over seeds, of the difference of two means.

        sqrt(var_k(mean_i s_ik) / K + var_k(mean_i o_ik) / K')

    A model of one seed adds nothing (a teacher, a linear model). Seeds count
    as independent: those of two rows share a start, which lowers the true error.

    Returns:
        The error; NaN where both models have one seed, or there is no unit.
    """
    means = [x.mean(axis=0) for x in (student, other) if len(x) and x.shape[1] > 1]
    if not means:
        return float("nan")
    return float(np.sqrt(sum(m.var(ddof=1) / len(m) for m in means)))


def t_test(mean: float, error: float, df: float, *, if_none: float) -> float:
    """Computes the two-sided p-value of `mean / error`; `if_none` without an error."""
    if not error > 0:
        return if_none
    return float(2 * stats.t.sf(abs(mean) / error, df))


def total_error(
    variance: float, df: float, trainings: Trainings
) -> tuple[float, float]:
    """Adds the variance of trainings to that of units.

    Returns:
        The standard error, and its degrees of freedom by Satterthwaite:
        `V^2 / sum_i (V_i^2 / df_i)`, and not below the least of them, as a difference
        of two estimates near 0 would have it.
    """
    total = variance + trainings.variance
    below = variance**2 / df + trainings.spread
    least = float(min(df, trainings.df))
    found = total**2 / below if below > 0 else least
    return float(np.sqrt(total)), float(max(found, least))


def paired_comparison(
    student: Float64[np.ndarray, "n seed"],
    other: Float64[np.ndarray, "m seed2"],
    *,
    trainings: Trainings = NO_TRAININGS,
    unit: Unit = "subject",
    seed: int = 0,
) -> Comparison:
    """Compares two models over the same units; the models may differ in seeds.

    The error is `V = s^2 / n + trainings.variance`, of Satterthwaite's degrees of
    freedom. A unit with a NaN on either side is excluded and counted. Where all
    differences are equal, which leaves a t-test nothing to divide by, sign flips alone
    decide; below six units nothing does.

    Raises:
        ValueError: If the numbers of units differ.
    """
    student, other = np.asarray(student, np.float64), np.asarray(other, np.float64)
    if student.ndim != 2 or other.ndim != 2 or len(student) != len(other):
        raise ValueError(f"Need [n, seed] twice; got {student.shape}, {other.shape}.")
    paired = student.mean(axis=1) - other.mean(axis=1)
    d = paired[np.isfinite(paired)]
    n = len(d)
    mean, variance = float("nan"), float("nan")
    error, df, p_t, p_signflip = float("nan"), float("nan"), 1.0, 1.0
    if n:
        mean = float(d.mean())
    if n > 1:
        variance = float(d.var(ddof=1)) / n
        # Rounding leaves a constant difference a deviation of about 1e-17.
        if d.std(ddof=1) <= 1e-12 * np.abs(d).max():
            variance = 0.0
        error, df = total_error(variance, n - 1.0, trainings)
        p_signflip = sign_flip_p(d, seed=seed)
        p_t = t_test(mean, error, df, if_none=p_signflip)
    half = stats.t.ppf(1 - ALPHA / 2, df) * error if n > 1 else float("nan")
    raw = Comparison(
        mean_difference=mean,
        low=float(mean - half),
        high=float(mean + half),
        p_t=p_t,
        p_signflip=p_signflip,
        p_adjusted=p_t,
        mde=detectable_effect(error, df),
        error=error,
        df=df,
        trainings_error=float(np.sqrt(trainings.variance)),
        seed_error=seed_error(*(x[np.isfinite(paired)] for x in (student, other))),
        n=n,
        num_excluded=len(paired) - n,
        unit=unit,
    )
    if n < LEAST_UNITS:
        return too_few(raw, LEAST_UNITS, tuple(d.tolist()))
    return judged(raw, raw.p)


def too_few(
    comparison: Comparison, least: int, differences: Sequence[float] = ()
) -> Comparison:
    """Returns a comparison without a verdict, and what it would take to have one.

    Args:
        comparison: Comparison of fewer units than a verdict needs.
        least: Units that a verdict needs.
        differences: One per unit, where units have their own.
    """
    c, needed = comparison, least
    words = [f"too few units: {c.n}, and a verdict needs {least}"]
    if differences:
        listed = ", ".join(f"{d:+.3g}" for d in differences[:_MOST_LISTED])
        more = ", ..." if len(differences) > _MOST_LISTED else ""
        words.append(f"differences {listed}{more}")
    if c.n > 1 and c.error > 0 and c.mean_difference:
        # The error shrinks with the root of the units.
        ratio = float(c.error * np.sqrt(c.n)) / abs(c.mean_difference)
        if ratio < _MOST_RATIO:
            for _ in range(5):
                shift = _noncentrality(float(needed - 1), ALPHA, POWER)
                needed = max(least, math.ceil((shift * ratio) ** 2))
            words.append(f"a difference as large would be found with about {needed}")
    return dataclasses.replace(
        comparison,
        verdict=None,
        reason="; ".join(words),
        differences=tuple(differences) or None,
        needed=needed,
    )


def judged(
    comparison: Comparison, p_adjusted: float, *, level: float = ALPHA
) -> Comparison:
    """Returns a comparison with its verdict; one without a verdict stays as it is.

    Args:
        comparison: The comparison.
        p_adjusted: The p-value that decides at 5 %.
        level: Level of its own tests that this comes to.
    """
    mde = detectable_effect(comparison.error, comparison.df, alpha=level)
    changes = {"p_adjusted": p_adjusted, "level": level, "mde": mde}
    if comparison.reason:
        return dataclasses.replace(comparison, **changes)
    verdict: Verdict = "undetectable"
    if p_adjusted < ALPHA:
        verdict = "better" if comparison.mean_difference > 0 else "worse"
    return dataclasses.replace(comparison, verdict=verdict, **changes)
