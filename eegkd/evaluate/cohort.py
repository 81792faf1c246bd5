"""The cohort as the unit: where subjects have no figure of their own.

A patient is ill in every window, a record is all there is of a person: AUROC of one
subject does not exist. The figure is then the metric over all test subjects, where
labels are the subject's own of each subject's mean score, in each fold, averaged over
folds. Subjects are drawn for its interval, and two models' predictions are swapped
within subjects for the test.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy import stats

from eegkd.evaluate.bootstrap import DRAWS, bca_interval, label_strata
from eegkd.evaluate.paired import (
    ALPHA,
    NO_TRAININGS,
    Comparison,
    Trainings,
    detectable_effect,
    judged,
    seed_error,
    t_test,
    too_few,
    total_error,
)
from eegkd.evaluate.predictions import Predictions, concatenate, has_label, select
from eegkd.evaluate.trainings import Spread, structure_of
from eegkd.evaluate.weighted import weighted_metric

LEAST_SUBJECTS = 20


class Part(NamedTuple):
    """One training's predictions of one fold.

    Attributes:
        predictions: Its labelled windows, or one row per subject.
        units: Number of each row's subject among the fold's.
    """

    predictions: Predictions
    units: Int64[np.ndarray, " n"]


class Cohort(NamedTuple):
    """The test subjects, by fold, and every model's predictions of them.

    Attributes:
        metric: Name of the metric.
        subjects: Subjects that have a label, sorted.
        members: Numbers of the subjects in each fold.
        strata: Number of each subject's label set.
        parts: Model -> seed -> fold.
    """

    metric: str
    subjects: Shaped[np.ndarray, " n"]
    members: Sequence[Int64[np.ndarray, " m"]]
    strata: Int64[np.ndarray, " n"]
    parts: Mapping[str, Sequence[Sequence[Part]]]


class Figures(NamedTuple):
    """A model's metric by seed and fold; NaN where a fold does not define it.

    Attributes:
        whole: Of all subjects.
        drawn: Of each draw of subjects.
        without: Of all but each subject.
    """

    whole: Float64[np.ndarray, "k f"]
    drawn: Float64[np.ndarray, "d k f"]
    without: Float64[np.ndarray, "n k f"]


def answers(
    predictions: Predictions, codes: Int64[np.ndarray, " n"], num: int
) -> tuple[Bool[np.ndarray, "u k"], Bool[np.ndarray, "u k"]]:
    """Returns the labels that some window of a subject has, and that some has not.

    Args:
        predictions: Windows that have a label.
        codes: Number of each window's subject.
        num: Number of subjects.
    """
    label, k = predictions.label, predictions.prob.shape[1]
    if label.ndim == 1:
        has = label[:, None] == np.arange(k)
        lacks = ~has
    else:
        has, lacks = label == 1, label == 0
    found = np.zeros((2, num, k), bool)
    for into, cells in zip(found, (has, lacks), strict=True):
        row, column = np.nonzero(cells)
        into[codes[row], column] = True
    return found[0], found[1]


def make_cohort(
    runs: Mapping[str, Sequence[Predictions]],
    folds: Shaped[np.ndarray, " n"],
    metric: str,
) -> Cohort:
    """Divides predictions by fold; one row per subject where labels are its own.

    Args:
        runs: Predictions of each model, by seed, all folds joined.
        folds: Fold of each window.
        metric: Name of the metric.
    """
    first = next(iter(runs.values()))[0]
    kept = has_label(first.label)
    subjects, codes = np.unique(first.subject[kept], return_inverse=True)
    has, lacks = answers(select(first, kept), codes, len(subjects))
    own = not (has & lacks).any()
    numbers = {subject: i for i, subject in enumerate(subjects.tolist())}
    names = np.unique(folds[kept])
    members = [np.unique(codes[folds[kept] == name]) for name in names]

    def parts(predictions: Predictions) -> list[Part]:
        found = []
        for name, those in zip(names, members, strict=True):
            rows = has_label(predictions.label) & (folds == name)
            part = select(predictions, rows)
            code = np.array([numbers[s] for s in part.subject.tolist()], np.int64)
            units = np.searchsorted(those, code)
            found.append(
                _of_subjects(part, units, len(those)) if own else Part(part, units)
            )
        return found

    divided = {name: [parts(p) for p in seeds] for name, seeds in runs.items()}
    return Cohort(metric, subjects, members, label_strata(has), divided)


def _of_subjects(predictions: Predictions, units: np.ndarray, num: int) -> Part:
    """Averages the scores of each subject's windows, cells not asked left out."""
    prob, label = predictions.prob, predictions.label
    asked = np.ones_like(prob, bool) if label.ndim == 1 else label >= 0
    total, count = np.zeros((2, num, prob.shape[1]))
    np.add.at(total, units, np.where(asked, prob, 0))
    np.add.at(count, units, asked)
    _, at = np.unique(units, return_index=True)
    rows = select(predictions, at)
    label = rows.label
    if label.ndim == 2:
        label = np.full_like(label, -1)
        np.maximum.at(label, units, predictions.label)
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    return Part(rows._replace(prob=mean, label=label), np.arange(num))


def figures_of(
    cohort: Cohort, weights: Float64[np.ndarray, "d n"]
) -> dict[str, Figures]:
    """Computes every model's metric of all subjects, of the draws, and without each."""
    n = len(cohort.subjects)
    every = np.concatenate([np.ones((1, n)), weights, 1 - np.eye(n)])
    found = {}
    for model, seeds in cohort.parts.items():
        values = np.full((len(every), len(seeds), len(cohort.members)), np.nan)
        for k, parts in enumerate(seeds):
            for f, (part, those) in enumerate(zip(parts, cohort.members, strict=True)):
                fn = weighted_metric(cohort.metric, *part, len(those))
                values[:, k, f] = fn(every[:, those])
        split = 1 + len(weights)
        found[model] = Figures(values[0], values[1:split], values[split:])
    return found


def over_folds(values: Float64[np.ndarray, "*d k f"]) -> Float64[np.ndarray, "*d"]:
    """Averages over the folds that define the metric, then over seeds."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)
    return np.asarray(mean.mean(axis=-1))


def swap_p(
    cohort: Cohort, student: str, other: str, *, seed: int, num: int = DRAWS
) -> float:
    """Computes the two-sided p-value under swaps of predictions within subjects.

    Where two models are equally good, a subject's predictions by the one might as well
    be the other's. All seeds of a subject are swapped together; models of different
    numbers of seeds are paired in turn.
    """
    n, rng = len(cohort.subjects), np.random.default_rng(seed)
    swaps = np.concatenate([np.zeros((1, n)), rng.integers(0, 2, (num, n))])
    ours, theirs = cohort.parts[student], cohort.parts[other]
    pairs = math.lcm(len(ours), len(theirs))
    gaps = np.full((len(swaps), pairs, len(cohort.members)), np.nan)
    for i in range(pairs):
        both = ours[i % len(ours)], theirs[i % len(theirs)]
        for f, (a, b) in enumerate(zip(*both, strict=True)):
            those = cohort.members[f]
            pool = concatenate([a.predictions, b.predictions])
            units = np.concatenate([a.units, b.units + len(those)])
            fn = weighted_metric(cohort.metric, pool, units, 2 * len(those))
            own = swaps[:, those]
            kept, given = 1 - own, own
            gaps[:, i, f] = fn(np.hstack([kept, given])) - fn(np.hstack([given, kept]))
    values = np.abs(over_folds(gaps))
    values = values[np.isfinite(values)]
    hits = np.count_nonzero(values[1:] >= values[0] - 1e-9)
    return float((1 + hits) / len(values))


def spreads_of_cohort(
    cohort: Cohort, figures: Mapping[str, Figures], same_shape: Sequence[str] = ()
) -> dict[str, list[Spread]]:
    """Estimates the variance of trainings of each structure in each fold.

    As for units, with the bootstrap's variance of what seeds do not share in place of
    `s_f^2 / n_f`.
    """
    first = next(iter(figures.values())).whole
    defined = np.flatnonzero(np.isfinite(first).all(axis=0)).tolist()
    found: dict[str, list[Spread]] = {}
    for f in defined:
        sums: dict[str, np.ndarray] = {}
        for row, own in figures.items():
            seeds = own.whole.shape[0]
            if seeds < 2 or len(cohort.members[f]) < 2:
                continue
            drawn = own.drawn[np.isfinite(own.drawn[:, :, f]).all(axis=1), :, f]
            apart = drawn - drawn.mean(axis=1, keepdims=True)
            between = own.whole[:, f].var() * seeds
            within = apart.var(axis=0, ddof=1).sum() if len(apart) > 1 else 0.0
            name = structure_of(row, same_shape)
            own_sums = np.array([between, within, seeds - 1])
            sums[name] = sums.get(name, np.zeros(3)) + own_sums
        for name, (between, within, df) in sums.items():
            df_within = df * (len(cohort.members[f]) - 1)
            weight = 1 / len(defined)
            spread = Spread(weight, between / df, within / df, df, df_within)
            found.setdefault(name, []).append(spread)
    return found


def compare_cohort(
    cohort: Cohort,
    figures: Mapping[str, Figures],
    student: str,
    other: str,
    *,
    trainings: Trainings = NO_TRAININGS,
    seed: int = 0,
) -> Comparison:
    """Compares two models over the cohort; below 20 subjects there is no verdict."""
    ours, theirs = figures[student], figures[other]
    whole, drawn, without = (
        over_folds(a) - over_folds(b) for a, b in zip(ours, theirs, strict=True)
    )
    gap = float(whole)
    defined = np.isfinite(ours.whole[0]) & np.isfinite(theirs.whole[0])
    used = [those for those, x in zip(cohort.members, defined, strict=True) if x]
    n = len(np.unique(np.concatenate(used))) if used else 0
    drawn = drawn[np.isfinite(drawn)]
    own = float(drawn.std(ddof=1)) if len(drawn) > 1 else float("nan")
    error, df = total_error(own**2, float("inf"), trainings)
    low, high = bca_interval(gap, drawn, without, cohort.strata)
    if own > 0:
        wider = stats.t.ppf(1 - ALPHA / 2, df) * error
        wider /= stats.norm.ppf(1 - ALPHA / 2) * own
        low = float(gap - wider * (gap - low))
        high = float(gap + wider * (high - gap))
    p_swap = p_t = 1.0
    if n >= LEAST_SUBJECTS:
        p_swap = swap_p(cohort, student, other, seed=seed)
        p_t = t_test(gap, error, df, if_none=p_swap)
    means = (np.nanmean(x.whole[:, defined], axis=1)[None] for x in (ours, theirs))
    raw = Comparison(
        mean_difference=gap,
        low=low,
        high=high,
        p_t=p_t,
        p_signflip=p_swap,
        p_adjusted=max(p_t, p_swap),
        mde=detectable_effect(error, df),
        error=error,
        df=df,
        trainings_error=float(np.sqrt(trainings.variance)),
        seed_error=seed_error(*means) if n else float("nan"),
        n=n,
        num_excluded=len(cohort.subjects) - n,
        unit="cohort",
        reason="" if n else "undefined: no fold's test subjects have two classes",
    )
    if n and n < LEAST_SUBJECTS:
        return too_few(raw, LEAST_SUBJECTS)
    return judged(raw, raw.p)
