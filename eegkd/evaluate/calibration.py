"""Reliability of probabilities, and one temperature to mend them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy import optimize
from scipy.special import log_softmax, softmax

from eegkd.evaluate.predictions import Predictions, labelled, select

NUM_BINS = 15
_FLOOR = 1e-12


class Reliability(NamedTuple):
    """The reliability table: bins by the probability of the decided class.

    Attributes:
        confidence: Mean probability in the bin, NaN where it is empty.
        accuracy: Share of right decisions in the bin, NaN where it is empty.
        count: Windows in the bin.
    """

    confidence: Float64[np.ndarray, " bins"]
    accuracy: Float64[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]


def reliability(
    predictions: Predictions, *, num_bins: int = NUM_BINS, equal_mass: bool = False
) -> Reliability:
    """Fills the bins of a reliability diagram.

    Args:
        predictions: Unlabelled windows are left out.
        num_bins: Number of bins.
        equal_mass: Bins of equal counts in place of equal width.
    """
    kept = labelled(predictions)
    confidence = kept.prob.max(axis=1).astype(np.float64)
    right = (kept.prob.argmax(axis=1) == kept.label).astype(np.float64)
    if equal_mass:
        rank = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
        bins = rank * num_bins // len(rank)
    else:  # bins are (i, i + 1] / num_bins
        bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    filled = np.where(count, count, np.nan)
    sums = [np.bincount(bins, w, minlength=num_bins) for w in (confidence, right)]
    return Reliability(sums[0] / filled, sums[1] / filled, count)


def expected_calibration_error(
    predictions: Predictions, *, num_bins: int = NUM_BINS, equal_mass: bool = False
) -> float:
    """Computes `sum_i n_i / n |accuracy_i - confidence_i|`."""
    table = reliability(predictions, num_bins=num_bins, equal_mass=equal_mass)
    gaps = np.abs(table.accuracy - table.confidence)
    return float(np.nansum(gaps * table.count) / table.count.sum())


def brier(predictions: Predictions) -> float:
    """Computes the mean over windows of `sum_k (p_k - [label = k])^2`."""
    kept = labelled(predictions)
    gold = np.eye(kept.prob.shape[1])[kept.label]
    return float(((kept.prob - gold) ** 2).sum(axis=1).mean())


def nll(predictions: Predictions) -> float:
    """Computes the mean of `-log p_label`, with probabilities of at least 1e-12."""
    kept = labelled(predictions)
    own = kept.prob[np.arange(len(kept.label)), kept.label].astype(np.float64)
    return float(-np.log(np.maximum(own, _FLOOR)).mean())


def calibration_scores(predictions: Predictions) -> dict[str, float]:
    """Returns `ece`, `ece_equal_mass`, `brier` and `nll` over all windows."""
    return {
        "ece": expected_calibration_error(predictions),
        "ece_equal_mass": expected_calibration_error(predictions, equal_mass=True),
        "brier": brier(predictions),
        "nll": nll(predictions),
    }


def calibration_per_subject(predictions: Predictions) -> Mapping[str, dict[str, float]]:
    """Returns `calibration_scores` of every subject with a labelled window."""
    kept = labelled(predictions)
    return {
        str(subject): calibration_scores(select(kept, kept.subject == subject))
        for subject in np.unique(kept.subject)
    }


def fit_temperature(
    logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"]
) -> float:
    """Finds the T in [0.01, 100] that minimises the NLL of `softmax(logits / T)`.

    To be fitted on validation subjects. Log-probabilities are logits too, so a model
    that returns probabilities is served by `np.log`. Unlabelled rows are left out.

    Raises:
        ValueError: If no row is labelled.
    """
    rows = np.flatnonzero(np.asarray(label) >= 0)
    if not len(rows):
        raise ValueError("No labelled window to fit a temperature on.")
    z = np.asarray(logits, np.float64)[rows]
    columns = np.asarray(label)[rows]

    def loss(log_t: float) -> float:
        log_p = log_softmax(z / np.exp(log_t), axis=1)
        return float(-log_p[np.arange(len(rows)), columns].mean())

    bounds = (np.log(0.01), np.log(100.0))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))  # type: ignore[attr-defined]


def to_logits(predictions: Predictions) -> Float64[np.ndarray, "n k"]:
    """Returns log-probabilities, which `softmax` turns back into probabilities."""
    return np.log(np.maximum(predictions.prob.astype(np.float64), _FLOOR))


def apply_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Replaces probabilities by `softmax(log(p) / T)`; decisions do not change.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive; got {temperature}.")
    prob = softmax(to_logits(predictions) / temperature, axis=1)
    return predictions._replace(prob=prob.astype(np.float32))
