"""Rows that have not learned: a rival at chance is no rival."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from eegkd.evaluate.evidence import Evidence
from eegkd.evaluate.metrics import score
from eegkd.evaluate.predictions import Predictions, concatenate, has_label, select

ROWS = ("teacher", "no_teacher", "alpha_0", "small_net", "linear")
"""Rows that a student is compared with, and that are meant to learn."""
GROUPS = 20
SHUFFLES = 20
ERRORS = 3.0
"""Standard errors above chance from which a row has learned. A validation score is the
best of many epochs and trials, and the best of 30 scores of noise lies two above."""


def unlearned_notes(evidence: Evidence) -> list[str]:
    """Names the rows whose validation score is not above chance, with the figures."""
    return list(evidence.once(_notes))


def validation_score(
    predictions: Predictions, metric: str, *, seed: int = 0
) -> tuple[float, float, float]:
    """Computes a validation score, its standard error over people, and chance.

    The error is the jackknife's, people left out one by one (in G = 20 groups where
    there are more): sqrt((G - 1) / G sum (s_g - mean s)^2).

    Returns:
        The metric over all labelled windows; its standard error; and its mean where
        the predictions are shuffled over the windows. All are NaN where the metric is
        undefined, there is one person, or it is undefined without any of them.
    """
    rng = np.random.default_rng(seed)
    predictions = select(predictions, has_label(predictions.label))
    people, unit = np.unique(predictions.subject, return_inverse=True)

    def value(p: Predictions) -> float:
        return score(p, [metric])[metric]

    def shuffled() -> float:
        order = rng.permutation(len(predictions.prob))
        return value(predictions._replace(prob=predictions.prob[order]))

    whole = value(predictions) if len(people) > 1 else np.nan
    if not np.isfinite(whole):
        return np.nan, np.nan, np.nan
    num = min(len(people), GROUPS)
    group = rng.permutation(len(people)) % num
    part = group[unit]
    left = [value(select(predictions, np.flatnonzero(part != i))) for i in range(num)]
    if not np.isfinite(left).any():
        return np.nan, np.nan, np.nan
    error = np.sqrt((num - 1) * np.nanvar(left))
    return whole, float(error), float(np.mean([shuffled() for _ in range(SHUFFLES)]))


def _notes(evidence: Evidence) -> Sequence[str]:
    metric = evidence.task.monitor
    named = metric.replace("_", " ")
    found = []
    for row in ROWS:
        scores = list(_scores(evidence, row, metric))
        bad = [(v, e, c) for v, e, c in scores if v <= c + ERRORS * e]
        if not bad:
            continue
        value, error, chance = min(bad)
        times = f" ({len(bad)} of its {len(scores)} trainings)" if scores[1:] else ""
        found.append(
            f"{row} has not learned{times}: its validation {named} of {value:.3f} "
            f"(standard error {error:.3f} over people) is not {ERRORS:g} errors above "
            f"chance, {chance:.3f}. To be better than such a row says little."
        )
    return found


def _scores(
    evidence: Evidence, row: str, metric: str
) -> Iterator[tuple[float, float, float]]:
    for parts in evidence.val.get(row, {}).values():
        judge = functools.partial(validation_score, metric=metric, seed=evidence.seed)
        yield judge(concatenate(list(parts)))
