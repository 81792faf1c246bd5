"""Predictions of several labels per window, drawn at random, some not asked."""

import numpy as np

from eegkd.evaluate.predictions import make_predictions


def draw(seed=0, n=60, k=4, *, unknown=0.2, ties=False, subjects=6, teacher=None):
    """Returns predictions whose probabilities have to do with their labels.

    With `teacher` the labels, and the windows, are those of other predictions.
    """
    rng = np.random.default_rng(seed)
    label = (rng.random((n, k)) < np.linspace(0.2, 0.6, k)).astype(int)
    prob = 1 / (1 + np.exp(-(rng.normal(size=(n, k)) + 1.5 * (label - 0.5))))
    if ties:
        prob = np.round(prob, 1)
    label[rng.random((n, k)) < unknown] = -1
    if teacher is not None:
        label = teacher.label
    return make_predictions(prob, label, np.arange(n) % subjects)
