"""The table of results: every row's mean and interval, and the verdicts on the student.

The unit is the subject, with seeds averaged within it (a fold, where a corpus names
none), or the cohort, where too few subjects have a figure of their own. The error of a
difference holds units and trainings; the teacher of each fold is held fixed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eegkd.evaluate.bootstrap import bca_interval, draw_subjects
from eegkd.evaluate.cohort import (
    compare_cohort,
    figures_of,
    has_label,
    make_cohort,
    over_folds,
    spreads_of_cohort,
)
from eegkd.evaluate.families import Registered, holm, judge_family
from eegkd.evaluate.metrics import per_subject, score
from eegkd.evaluate.paired import (
    LEAST_UNITS,
    Comparison,
    Unit,
    Verdict,
    minimum_detectable_effect,
    paired_comparison,
    sign_flip_p,
    t_interval,
)
from eegkd.evaluate.predictions import Predictions
from eegkd.evaluate.rows import A_A, A_A_OF, REGISTERED, STUDENT, TEACHER
from eegkd.evaluate.trainings import spreads_of_units, structure_of, trainings_of

__all__ = [
    "Comparison",
    "Summary",
    "UnitValues",
    "Verdict",
    "compare_all",
    "holm",
    "minimum_detectable_effect",
    "paired_comparison",
    "result_rows",
    "sign_flip_p",
    "summarise",
    "t_interval",
    "unit_of",
    "unit_values",
]

UnitValues = Mapping[str, np.ndarray]
"""The metric of every unit (subject), `f64[seed]`; models may differ in seeds."""
Runs = Mapping[str, Sequence[Predictions]]
"""Test predictions of each row, by seed, all folds joined."""


class Summary(NamedTuple):
    """Rows of results.json, and the comparisons that verdicts rest on.

    Attributes:
        rows: One per metric and model.
        comparisons: Metric -> row -> the student against it; `a_a` against its own.
    """

    rows: list[dict[str, Any]]
    comparisons: dict[str, dict[str, Comparison]]


class _Judged(NamedTuple):
    """One metric: the unit, each row's mean with its interval, and raw comparisons."""

    unit: Unit
    means: dict[str, tuple[float, float, float, int, int]]
    found: dict[str, Comparison]


def unit_values(seeds: Sequence[Predictions], metric: str) -> UnitValues:
    """Computes a metric for every unit and seed of a model.

    Raises:
        ValueError: If two seeds were judged on different units.
    """
    scored = [per_subject(predictions, metric) for predictions in seeds]
    if not scored or any(set(values) != set(scored[0]) for values in scored):
        raise ValueError("Every seed of a model must be judged on the same units.")
    return {u: np.array([values[u] for values in scored]) for u in scored[0]}


def unit_of(values: UnitValues, num_labelled: int) -> Unit:
    """Decides between subject and cohort.

    The cohort is the unit where some subjects have no figure of their own and fewer
    than 6 have one, or fewer than half.

    Args:
        values: The student's metric by subject; NaN where there is none.
        num_labelled: Subjects that have a label.
    """
    own = sum(bool(np.isfinite(v).all()) for v in values.values())
    few = own < LEAST_UNITS or 2 * own < num_labelled
    return "cohort" if own < num_labelled and few else "subject"


def compare_all(
    student: UnitValues,
    others: Mapping[str, UnitValues],
    *,
    folds: Mapping[str, Any] | None = None,
    same_shape: Sequence[str] = (),
    unit: Unit = "subject",
    registered: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compares the student with every other model over units, as `judge_family` says.

    Args:
        student: The student's values.
        others: Those of the other models, by row.
        folds: Fold of each unit; None: all in one.
        same_shape: Further rows whose models are built as the student is.
        unit: What the units are.
        registered: Rows that the student must all beat.
        seed: Seed of the sign-flip test beyond 20 units.

    Raises:
        ValueError: If a model was judged on other units than the student.
    """
    found = _compare_units(
        {STUDENT: student, **others}, folds or {}, same_shape, unit, seed
    )
    return judge_family(found, registered)[0]


def _compare_units(
    values: Mapping[str, UnitValues],
    folds: Mapping[str, Any],
    same_shape: Sequence[str],
    unit: Unit,
    seed: int,
) -> dict[str, Comparison]:
    """Compares the student with each row, `a_a` with its own."""
    student = values[STUDENT]
    for name, own in values.items():
        if set(own) != set(student):
            odd = sorted(set(own) ^ set(student))[:5]
            raise ValueError(f"{name!r} and the student differ in units, as {odd}.")
    stacks = {name: np.stack([v[u] for u in student]) for name, v in values.items()}
    place = np.array([folds.get(u, 0) for u in student])
    found = {}
    for first, name in _pairs(values):
        kept = np.isfinite(stacks[first].mean(axis=1) + stacks[name].mean(axis=1))
        own = {row: x[kept] for row, x in stacks.items()}
        spreads = spreads_of_units(own, place[kept], same_shape)
        seeds = {row: stacks[row].shape[1] for row in (first, name)}
        found[_about(first, name)] = paired_comparison(
            stacks[first],
            stacks[name],
            trainings=trainings_of(spreads, _sides(seeds, same_shape)),
            unit=unit,
            seed=seed,
        )
    return found


def _pairs(rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists what is compared: the student with each row, `a_a` with its own."""
    pairs = [(STUDENT, name) for name in rows if name not in (STUDENT, A_A)]
    return [*pairs, (A_A, A_A_OF)] if {A_A, A_A_OF} <= set(rows) else pairs


def _sides(
    seeds: Mapping[str, int], same_shape: Sequence[str]
) -> list[tuple[str, int]]:
    """Returns the structure and the number of seeds of both rows of a comparison."""
    return [(structure_of(row, same_shape), num) for row, num in seeds.items()]


def _about(first: str, second: str) -> str:
    """Returns the row that a comparison is shown in."""
    return second if first == STUDENT else first


def _by_unit(
    values: Mapping[str, UnitValues],
    folds: Mapping[str, Any],
    same_shape: Sequence[str],
    unit: Unit,
    seed: int,
) -> _Judged:
    means = {}
    for name, own in values.items():
        x = np.array([v.mean() for v in own.values()])
        known = x[np.isfinite(x)]
        mean = float(known.mean()) if len(known) else float("nan")
        means[name] = mean, *t_interval(known), len(known), len(x) - len(known)
    return _Judged(unit, means, _compare_units(values, folds, same_shape, unit, seed))


def _by_cohort(
    runs: Runs, folds: np.ndarray, metric: str, same_shape: Sequence[str], seed: int
) -> _Judged:
    cohort = make_cohort(runs, folds, metric)
    figures = figures_of(cohort, draw_subjects(cohort.strata, seed=seed))
    num_all = len(np.unique(next(iter(runs.values()))[0].subject))
    means = {}
    for name, own in figures.items():
        whole, drawn, without = map(over_folds, own)
        known = np.isfinite(own.whole[0])
        used = [m for m, x in zip(cohort.members, known, strict=True) if x]
        n = len(np.unique(np.concatenate(used))) if used else 0
        ends = bca_interval(float(whole), drawn, without, cohort.strata)
        means[name] = float(whole), *ends, n, num_all - n
    spreads = spreads_of_cohort(cohort, figures, same_shape)
    found = {}
    for first, name in _pairs(runs):
        seeds = {row: len(runs[row]) for row in (first, name)}
        trainings = trainings_of(spreads, _sides(seeds, same_shape))
        found[_about(first, name)] = compare_cohort(
            cohort, figures, first, name, trainings=trainings, seed=seed
        )
    return _Judged("cohort", means, found)


def _with_room(
    judged: _Judged, found: Mapping[str, Comparison]
) -> dict[str, Comparison]:
    """Marks rows that the teacher is not above by what could be detected."""
    rooms = dict(found)
    teacher = judged.means.get(TEACHER, (float("nan"),))[0]
    for name, c in found.items():
        gap = teacher - judged.means[name][0]
        known = np.isfinite(gap) and np.isfinite(c.mde) and not c.reason
        if name not in (TEACHER, A_A) and known:
            rooms[name] = dataclasses.replace(c, no_room=bool(gap < c.mde))
    return rooms


def _folds_of_units(
    predictions: Predictions, folds: np.ndarray | None
) -> dict[str, Any]:
    """Returns the fold of each unit; {} (one for all) if some are in several."""
    if folds is None:
        return {}
    pairs = {
        (str(u), f) for u, f in zip(predictions.subject, folds.tolist(), strict=True)
    }
    found = dict(pairs)
    return found if len(found) == len(pairs) else {}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no NaN


def summarise(
    runs: Runs,
    metrics: Sequence[str],
    *,
    folds: np.ndarray | None = None,
    units: Unit = "subject",
    registered: Sequence[str] | None = None,
    why_not: Mapping[str, str] = {},
    same_shape: Sequence[str] = (),
    seed: int = 0,
) -> Summary:
    """Judges every row and compares the student with each, metric by metric.

    Args:
        runs: One list of test predictions (all folds joined) per row, one per seed.
        metrics: Names of `metrics.METRICS`; all but the first are exploratory.
        folds: Fold of each window; None: all in one.
        units: What `Predictions.subject` holds; of folds there is no cohort.
        registered: Rows that the student must all beat; None: those of
            `rows.REGISTERED` that are there.
        why_not: Why a row was not trained.
        same_shape: Further rows whose models are built as the student is.
        seed: Seed of the draws, and of the sign-flip test beyond 20 units.

    Returns:
        The rows of results.json. Beside mean, interval and verdict: `unit`, `reason`
        where there is no verdict, `exploratory`, `no_room`; `pooled`, the metric over
        all windows together (mean over seeds); `num_excluded`, units where the metric
        is undefined. What is undefined is None. The verdict of the student's own row is
        the registered comparison.

    Raises:
        ValueError: If there is no student, or the units of two models differ.
    """
    if STUDENT not in runs:
        raise ValueError(f"No {STUDENT!r} among the models {sorted(runs)}.")
    if registered is None:
        registered = [name for name in REGISTERED if name in runs]
    rows, compared = [], {}
    first = runs[STUDENT][0]
    labelled = len(np.unique(first.subject[has_label(first.label)]))
    place = _folds_of_units(first, folds)
    for metric in metrics:
        values = {name: unit_values(seeds, metric) for name, seeds in runs.items()}
        unit = units
        if units == "subject":
            unit = unit_of(values[STUDENT], labelled)
        if unit == "cohort":
            where = np.zeros(len(first.label)) if folds is None else folds
            judged = _by_cohort(runs, where, metric, same_shape, seed)
        else:
            judged = _by_unit(values, place, same_shape, unit, seed)
        found, claim = judge_family(
            judged.found, registered, why_not=why_not, secondary=metric != metrics[0]
        )
        compared[metric] = _with_room(judged, found)
        for name, seeds in runs.items():
            pooled = np.mean([score(p, [metric])[metric] for p in seeds])
            own = _row(name, metric, judged, compared[metric], claim, registered)
            more = {"seeds": len(seeds), "pooled": _number(float(pooled))}
            rows.append(own | more)
    return Summary(rows, compared)


def _row(
    name: str,
    metric: str,
    judged: _Judged,
    found: Mapping[str, Comparison],
    claim: Registered,
    registered: Sequence[str],
) -> dict[str, Any]:
    """Makes a row of results.json."""
    mean, low, high, n, excluded = judged.means[name]
    if name == STUDENT:
        verdict, reason = claim
        own = [found[r] for r in registered if r in found]
        exploratory = any(c.exploratory for c in own)
        rooms = [c.no_room for c in own if c.no_room is not None]
        no_room = any(rooms) if rooms else None
    elif name in found:
        c = found[name]
        verdict, reason, exploratory = c.verdict, c.reason, c.exploratory
        no_room = c.no_room
    else:
        verdict, reason = None, f"there is no {A_A_OF} to compare it with"
        exploratory, no_room = False, None
    return {
        "model": name,
        "metric": metric,
        "mean": _number(mean),
        "low": _number(low),
        "high": _number(high),
        "n_subjects": n,
        "verdict": verdict,
        "reason": reason or None,
        "unit": judged.unit,
        "exploratory": exploratory,
        "no_room": no_room,
        "num_excluded": excluded,
    }


def result_rows(
    runs: Runs, metrics: Sequence[str], **options: Any
) -> list[dict[str, Any]]:
    """Returns only the rows of `summarise`."""
    return summarise(runs, metrics, **options).rows
