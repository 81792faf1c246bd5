"""Metrics of weighted subjects against the metrics of repeated windows."""

import numpy as np
import pytest

from eegkd.evaluate.metrics import OF_LABELS, score
from eegkd.evaluate.predictions import make_predictions, select
from eegkd.evaluate.weighted import (
    OF_CLASSES,
    OF_COUNTS,
    pairs_in_order,
    weighted_metric,
)
from tests.support.label_predictions import draw

SUBJECTS = 7


def windows(k, seed=0, num=90, digits=1):
    """Scores of few digits, so that many tie; one class is rare, one subject bare."""
    rng = np.random.default_rng(seed)
    label = rng.choice(k, num, p=np.r_[0.15, np.full(k - 1, 0.85 / (k - 1))])
    prob = rng.dirichlet(np.ones(k), num)
    prob[np.arange(num), label] += rng.random(num)
    prob = np.round(prob / prob.sum(1, keepdims=True), digits)
    subject = rng.integers(0, SUBJECTS - 1, num)
    return make_predictions(np.clip(prob, 0, 1), label, subject.astype(str)), subject


def weights_of(seed=1, num=40):
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 3, (num, SUBJECTS)).astype(float)
    found[0], found[1] = 1, np.eye(SUBJECTS)[2]
    return found


def repeated(metric, predictions, units, weights):
    found = []
    for own in weights.astype(int):
        rows = np.repeat(np.arange(len(units)), own[units])
        kept = select(predictions, rows)
        found.append(score(kept, [metric])[metric] if len(rows) else np.nan)
    return found


@pytest.mark.parametrize("metric", [*OF_COUNTS, *OF_CLASSES])
def test_draws_have_the_metric_of_their_windows(metric):
    for k in (2,) if metric == "sensitivity_at_specificity" else (2, 4):
        predictions, units = windows(k)
        got = weighted_metric(metric, predictions, units, SUBJECTS)(weights_of())
        want = repeated(metric, predictions, units, weights_of())
        np.testing.assert_allclose(got, want, atol=1e-9, err_msg=f"{metric} {k}")


@pytest.mark.parametrize("metric", OF_LABELS)
def test_draws_of_several_labels_have_the_metric_of_their_windows(metric):
    drawn = draw(3, ties=True, subjects=SUBJECTS)
    label = drawn.label.copy()
    label[:, 3] = -1  # Nobody was asked for it.
    predictions = drawn._replace(label=label)
    predictions = select(predictions, (label >= 0).any(axis=1))
    units = predictions.subject.astype(np.int64)
    got = weighted_metric(metric, predictions, units, SUBJECTS)(weights_of())
    want = repeated(metric, predictions, units, weights_of())
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("num", [200, 1300])
def test_pairs_are_those_counted_one_by_one(num):
    """A few windows are compared at once, many in blocks of their order."""
    rng = np.random.default_rng(2)
    gold, above = rng.random(num) < 0.05, np.round(rng.random(num), 2)
    units = rng.integers(0, 4, num)
    want = np.zeros((4, 4))
    for i in np.flatnonzero(gold):
        for j in np.flatnonzero(~gold):
            ahead = (above[i] > above[j]) + 0.5 * (above[i] == above[j])
            want[units[i], units[j]] += ahead
    np.testing.assert_array_equal(pairs_in_order(gold, above, units, 4), want)
