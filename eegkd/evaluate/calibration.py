"""Reliability of probabilities, and one temperature to mend them.

Where windows have several labels each, every known label is one decision between yes
and no: the probability of yes stands against the share of yes, and the temperature is
that of all logistic functions together.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped
from scipy import optimize
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from eegkd.evaluate.multilabel import negative_bce
from eegkd.evaluate.predictions import Predictions, labelled, select

NUM_BINS = 15
_FLOOR = 1e-12


class Reliability(NamedTuple):
    """The reliability table: bins by the probability of the decided class.

    Attributes:
        confidence: Mean probability in the bin, NaN where it is empty.
        accuracy: Share of right decisions in the bin (of several labels: of yes), NaN
            where it is empty.
        count: Windows, or labels, in the bin.
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
    if kept.label.ndim > 1:
        right, confidence = _cells(kept)
    else:
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


def _cells(
    kept: Predictions,
) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]]:
    """Returns the known labels of all windows, 0 or 1, and their probabilities."""
    known = kept.label >= 0
    return kept.label[known].astype(np.float64), kept.prob[known].astype(np.float64)


def expected_calibration_error(
    predictions: Predictions, *, num_bins: int = NUM_BINS, equal_mass: bool = False
) -> float:
    """Computes `sum_i n_i / n |accuracy_i - confidence_i|`."""
    table = reliability(predictions, num_bins=num_bins, equal_mass=equal_mass)
    gaps = np.abs(table.accuracy - table.confidence)
    return float(np.nansum(gaps * table.count) / table.count.sum())


def brier(predictions: Predictions) -> float:
    """Computes the mean over windows of `sum_k (p_k - [label = k])^2`.

    Of several labels, the mean of `(p - y)^2` over those known.
    """
    kept = labelled(predictions)
    if kept.label.ndim > 1:
        gold, prob = _cells(kept)
        return float(np.mean((prob - gold) ** 2))
    gold = np.eye(kept.prob.shape[1])[kept.label]
    return float(((kept.prob - gold) ** 2).sum(axis=1).mean())


def nll(predictions: Predictions) -> float:
    """Computes the mean of `-log p_label`, with probabilities of at least 1e-12.

    Of several labels, the mean over those known.
    """
    kept = labelled(predictions)
    if kept.label.ndim > 1:
        return -negative_bce(kept)
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
    logits: Float[np.ndarray, "n k"], label: Shaped[np.ndarray, "..."]
) -> float:
    """Finds the T in [0.01, 100] that minimises the NLL of `softmax(logits / T)`.

    To be fitted on validation subjects. Log-probabilities are logits too, so a model
    that returns probabilities is served by `np.log`. Unlabelled rows are left out. Of
    several labels, [n, k], the likelihood is that of the logistic functions of
    `logits / T`, over known labels.

    Raises:
        ValueError: If no row is labelled.
    """
    label = np.asarray(label)
    known = label >= 0
    if not known.any():
        raise ValueError("No labelled window to fit a temperature on.")
    z, gold = np.asarray(logits, np.float64)[known], label[known]

    def loss(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        if label.ndim > 1:
            return float(-log_expit(np.where(gold == 1, scaled, -scaled)).mean())
        log_p = log_softmax(scaled, axis=1)
        return float(-log_p[np.arange(len(gold)), gold].mean())

    bounds = (np.log(0.01), np.log(100.0))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))  # type: ignore[attr-defined]


def to_logits(predictions: Predictions) -> Float64[np.ndarray, "n k"]:
    """Returns log-probabilities, which `softmax` turns back into probabilities.

    Of several labels, `log(p / (1 - p))`, which the logistic function turns back.
    """
    if predictions.label.ndim > 1:
        return _logit(predictions.prob)
    return np.log(np.maximum(predictions.prob.astype(np.float64), _FLOOR))


def _logit(prob: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return logit(np.clip(prob.astype(np.float64), _FLOOR, 1 - _FLOOR))


def temper(
    prob: Float[np.ndarray, "..."], temperature: float
) -> Float64[np.ndarray, "..."]:
    """Computes the logistic function of `log(p / (1 - p)) / T`, one by one."""
    return expit(_logit(prob) / temperature)


def apply_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Replaces probabilities by `softmax(log(p) / T)`; decisions do not change.

    Of several labels, by the logistic function of `log(p / (1 - p)) / T`.

    Raises:
        ValueError: If the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive; got {temperature}.")
    if predictions.label.ndim > 1:
        prob = temper(predictions.prob, temperature)
    else:
        prob = softmax(to_logits(predictions) / temperature, axis=1)
    return predictions._replace(prob=prob.astype(np.float32))
