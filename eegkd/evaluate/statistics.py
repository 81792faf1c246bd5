"""Comparisons of models with the subject as the unit, seeds averaged within it.

A verdict comes from the Holm-adjusted two-sided paired t-test at 5 %, and its
sign from the mean difference; the exact sign-flip test is printed with it and decides
only where all differences are equal, which leaves a t-test nothing to divide by.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64
from scipy import optimize, stats

from eegkd.evaluate.metrics import per_subject, score
from eegkd.evaluate.predictions import Predictions

Verdict = Literal["better", "worse", "undetectable"]
ALPHA = 0.05
_EXACT_UNITS = 20
_MONTE_CARLO = 100_000

UnitValues = Mapping[str, np.ndarray]
"""The metric of every unit (subject), `f64[seed]`; models may differ in seeds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The student against another model, over the same units.

    Attributes:
        mean_difference: Student minus other.
        low: Lower end of the 95 % t interval; NaN below two units.
        high: Upper end.
        p_t: Two-sided paired t-test.
        p_signflip: Two-sided sign-flip test.
        p_adjusted: `p_t` after Holm over the family it was compared in.
        mde: Minimum detectable effect of one such t-test at 80 % power.
        seed_error: Standard error of `mean_difference` over seeds, units held fixed;
            NaN where neither model has two. All other fields hold the trainings fixed:
            units that agree do not show that other seeds would.
        n: Units used.
        num_excluded: Units left out because the metric is undefined there.
        verdict: Verdict on the student.
    """

    mean_difference: float
    low: float
    high: float
    p_t: float
    p_signflip: float
    p_adjusted: float
    mde: float
    seed_error: float
    n: int
    num_excluded: int
    verdict: Verdict


class Summary(NamedTuple):
    """Rows of results.json, and the values by unit that verdicts rest on."""

    rows: list[dict[str, Any]]
    comparisons: dict[str, dict[str, Comparison]]


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


def holm(ps: Sequence[float]) -> Float64[np.ndarray, " m"]:
    """Adjusts p-values by Holm's step-down: `max_{j <= i} min(1, (m - j) p_(j))`."""
    p = np.asarray(ps, np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


@lru_cache
def _detectable_effect_size(n: int, alpha: float, power: float) -> float:
    # t^2 is noncentral F; SciPy's noncentral t has NaN tails where this has none.
    limit = stats.f.isf(alpha, 1, n - 1)

    def shortfall(shift: float) -> float:
        return float(stats.ncf.sf(limit, 1, n - 1, shift**2)) - power

    upper = 4.0
    while shortfall(upper) < 0:
        upper *= 2
    found = optimize.root_scalar(shortfall, bracket=(1e-3, upper), method="brentq")
    return found.root / n**0.5


def minimum_detectable_effect(
    sd: float, n: int, *, alpha: float = ALPHA, power: float = 0.8
) -> float:
    """Computes the mean difference that a paired t-test finds with this power.

    From the noncentral t distribution, two-sided; NaN below two units.
    """
    return sd * _detectable_effect_size(n, alpha, power) if n >= 2 else float("nan")


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


def paired_comparison(
    student: Float64[np.ndarray, "n seed"],
    other: Float64[np.ndarray, "m seed2"],
    *,
    seed: int = 0,
) -> Comparison:
    """Compares two models over the same units; the models may differ in seeds.

    A unit with a NaN on either side is excluded and counted. Below two units, and
    where all differences are zero, nothing is detectable and p is 1.

    Raises:
        ValueError: If the numbers of units differ.
    """
    student, other = np.asarray(student, np.float64), np.asarray(other, np.float64)
    if student.ndim != 2 or other.ndim != 2 or len(student) != len(other):
        raise ValueError(f"Need [n, seed] twice; got {student.shape}, {other.shape}.")
    paired = student.mean(axis=1) - other.mean(axis=1)
    d = paired[np.isfinite(paired)]
    n = len(d)
    sd = float(d.std(ddof=1)) if n > 1 else float("nan")
    p_t = p_signflip = 1.0
    if n > 1:
        p_signflip = sign_flip_p(d, seed=seed)
        # Rounding leaves a constant difference a deviation of about 1e-17.
        if sd > 1e-12 * np.abs(d).max():
            p_t = float(2 * stats.t.sf(abs(d.mean()) / (sd / np.sqrt(n)), n - 1))
        else:
            p_t = p_signflip
    low, high = t_interval(d)
    raw = Comparison(
        mean_difference=float(d.mean()) if n else float("nan"),
        low=low,
        high=high,
        p_t=p_t,
        p_signflip=p_signflip,
        p_adjusted=p_t,
        mde=minimum_detectable_effect(sd, n),
        seed_error=seed_error(*(x[np.isfinite(paired)] for x in (student, other))),
        n=n,
        num_excluded=len(paired) - n,
        verdict="undetectable",
    )
    return _judged(raw, p_t)


def _judged(comparison: Comparison, p_adjusted: float) -> Comparison:
    verdict: Verdict = "undetectable"
    if p_adjusted < ALPHA:
        verdict = "better" if comparison.mean_difference > 0 else "worse"
    return dataclasses.replace(comparison, p_adjusted=p_adjusted, verdict=verdict)


def compare_all(
    student: UnitValues, others: Mapping[str, UnitValues], *, seed: int = 0
) -> dict[str, Comparison]:
    """Compares the student with every other model, Holm over all of them.

    Raises:
        ValueError: If a model was judged on other units than the student.
    """
    found = {}
    for name, values in others.items():
        if set(values) != set(student):
            odd = sorted(set(values) ^ set(student))[:5]
            raise ValueError(f"{name!r} and the student differ in units, as {odd}.")
        stack = [np.stack([v[unit] for unit in student]) for v in (student, values)]
        found[name] = paired_comparison(*stack, seed=seed)
    adjusted = holm([c.p_t for c in found.values()])
    pairs = zip(found.items(), adjusted, strict=True)
    return {name: _judged(c, float(p)) for (name, c), p in pairs}


def unit_values(seeds: Sequence[Predictions], metric: str) -> UnitValues:
    """Computes a metric for every unit and seed of a model.

    Raises:
        ValueError: If two seeds were judged on different units.
    """
    scored = [per_subject(predictions, metric) for predictions in seeds]
    if not scored or any(set(values) != set(scored[0]) for values in scored):
        raise ValueError("Every seed of a model must be judged on the same units.")
    return {u: np.array([values[u] for values in scored]) for u in scored[0]}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no NaN


def summarise(
    runs: Mapping[str, Sequence[Predictions]],
    metrics: Sequence[str],
    *,
    student: str = "student",
    reference: str = "no_teacher",
    seed: int = 0,
) -> Summary:
    """Judges every model and compares the student with each, metric by metric.

    Args:
        runs: One list of test predictions (all folds joined) per model, one per seed.
        metrics: Names of `metrics.METRICS`.
        student: The model that verdicts are about.
        reference: The model that the student's own row is compared with.
        seed: Seed of the sign-flip test beyond 20 units.

    Returns:
        The rows of results.json, with two keys more: `pooled`, the metric over all
        windows together (mean over seeds), and `num_excluded`, units where the metric
        is undefined. What is undefined is None. The Holm family is the rows of one
        metric; the student's own row repeats `reference` and is not counted again.

    Raises:
        ValueError: If there is no student, or the units of two models differ.
    """
    if student not in runs:
        raise ValueError(f"No {student!r} among the models {sorted(runs)}.")
    rows, compared = [], {}
    for metric in metrics:
        values = {name: unit_values(seeds, metric) for name, seeds in runs.items()}
        others = {name: v for name, v in values.items() if name != student}
        found = compared[metric] = compare_all(values[student], others, seed=seed)
        for name, seeds in runs.items():
            means = np.array([v.mean() for v in values[name].values()])
            means = means[np.isfinite(means)]
            low, high = t_interval(means)
            comparison = found.get(reference if name == student else name)
            pooled = np.mean([score(p, [metric])[metric] for p in seeds])
            rows.append(
                {
                    "model": name,
                    "metric": metric,
                    "mean": _number(means.mean()) if len(means) else None,
                    "low": _number(low),
                    "high": _number(high),
                    "n_subjects": len(means),
                    "seeds": len(seeds),
                    "verdict": comparison.verdict if comparison else None,
                    "pooled": _number(float(pooled)),
                    "num_excluded": len(values[name]) - len(means),
                }
            )
    return Summary(rows, compared)


def result_rows(
    runs: Mapping[str, Sequence[Predictions]], metrics: Sequence[str], **options: Any
) -> list[dict[str, Any]]:
    """Returns only the rows of `summarise`."""
    return summarise(runs, metrics, **options).rows
