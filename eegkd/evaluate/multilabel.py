"""Metrics of windows that have several labels each: `Predictions` with labels [n, k].

A cell is one label of one window; those that nobody was asked for (-1) are left out
everywhere. A class whose known cells are all equal has no AUROC or average precision,
and macro means run over the others. Nothing here calls scikit-learn, whose checks would
cost more than the metric: a bootstrap takes it thousands of times.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from scipy.special import xlogy
from scipy.stats import rankdata

from eegkd.evaluate.predictions import Predictions

HALF = 0.5
_FLOOR = 1e-12

BinaryMetric = Callable[[np.ndarray, np.ndarray], float]
"""`(gold bool[n], score f[n]) -> float`, with both values in gold."""


def binary_auroc(gold: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Computes the share of pairs that are in order; a tie counts half.

    `(R - m (m + 1) / 2) / (m (n - m))`, with R the sum of the ranks of the m positive.
    """
    num = np.count_nonzero(gold)
    above = rankdata(score)[gold].sum() - num * (num + 1) / 2
    return float(above / (num * (len(gold) - num)))


def binary_ap(gold: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"]) -> float:
    """Computes the average precision, `sum_i (R_i - R_{i-1}) P_i` over thresholds."""
    true, decided, _ = _operating_points(gold, score)
    gain = np.diff(true, prepend=0) / true[-1]
    return float(np.sum(gain * true / decided))


def _operating_points(
    gold: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Counts right and all positive decisions at each distinct score, largest first."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    return np.cumsum(gold[order])[last], last + 1, ordered[last]


def per_class(
    metric: BinaryMetric, label: Float[np.ndarray, "n k"], score: np.ndarray
) -> Float64[np.ndarray, " k"]:
    """Computes a metric of each class; NaN where its known labels are all equal."""
    values = np.full(label.shape[1], np.nan)
    for k, own in enumerate(label.T):
        known = own >= 0
        gold = own[known] == 1
        if gold.any() and not gold.all():
            values[k] = metric(gold, score[known, k])
    return values


def class_auroc(p: Predictions) -> Float64[np.ndarray, " k"]:
    """Computes the AUROC of each class; NaN where it is undefined."""
    return per_class(binary_auroc, p.label, p.prob)


def class_ap(p: Predictions) -> Float64[np.ndarray, " k"]:
    """Computes the average precision of each class; NaN where it is undefined."""
    return per_class(binary_ap, p.label, p.prob)


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def macro_auroc(p: Predictions) -> float:
    """Computes the mean AUROC over the classes that have one."""
    return _mean(class_auroc(p))


def macro_ap(p: Predictions) -> float:
    """Computes the mean average precision over the classes that have one."""
    return _mean(class_ap(p))


def _cells(p: Predictions) -> tuple[np.ndarray, np.ndarray]:
    known = p.label >= 0
    return p.label[known] == 1, p.prob[known]


def _micro(metric: BinaryMetric, p: Predictions) -> float:
    gold, score = _cells(p)
    return metric(gold, score) if gold.any() and not gold.all() else float("nan")


def micro_auroc(p: Predictions) -> float:
    """Computes the AUROC over all known cells together."""
    return _micro(binary_auroc, p)


def micro_ap(p: Predictions) -> float:
    """Computes the average precision over all known cells together."""
    return _micro(binary_ap, p)


def negative_bce(p: Predictions) -> float:
    """Computes the mean over known cells of `y log p + (1 - y) log(1 - p)`.

    Probabilities are kept at least 1e-12 away from 0 and 1.
    """
    gold, score = _cells(p)
    q = np.clip(score.astype(np.float64), _FLOOR, 1 - _FLOOR)
    return float(np.mean(xlogy(gold, q) + xlogy(1.0 - gold, 1 - q)))


def _counts(p: Predictions) -> Int64[np.ndarray, "3 k"]:
    """Counts true positives, false positives and false negatives of each class."""
    known, gold, decided = p.label >= 0, p.label == 1, p.prob >= HALF
    return np.stack(
        [
            (cells & known).sum(axis=0)
            for cells in (gold & decided, ~gold & decided, gold & ~decided)
        ]
    )


def class_f1(p: Predictions) -> Float64[np.ndarray, " k"]:
    """Computes `2 tp / (2 tp + fp + fn)` of each class at a probability of 0.5.

    NaN for a class that no window has. `at_thresholds` moves other thresholds there.
    """
    tp, fp, fn = _counts(p)
    whole = np.where(tp + fn > 0, 2 * tp + fp + fn, np.nan)
    return 2 * tp / whole


def macro_f1(p: Predictions) -> float:
    """Computes the mean F1 over the classes that some window has."""
    return _mean(class_f1(p))


def micro_f1(p: Predictions) -> float:
    """Computes F1 over all known cells together; NaN where no window has a class."""
    tp, fp, fn = _counts(p).sum(axis=1)
    return float(2 * tp / (2 * tp + fp + fn)) if tp + fn else float("nan")


def negative_hamming(p: Predictions) -> float:
    """Computes minus the share of known cells that are decided wrongly."""
    gold, score = _cells(p)
    return float(-np.mean(gold != (score >= HALF)))


def exact_match(p: Predictions) -> float:
    """Computes the share of windows with all their known cells decided rightly."""
    wrong = (p.label >= 0) & ((p.label == 1) != (p.prob >= HALF))
    return float(np.mean(~wrong.any(axis=1)))


def fit_thresholds(p: Predictions) -> Float64[np.ndarray, " k"]:
    """Finds each class's probability from which on to decide yes, by its best F1.

    It lies halfway between two neighbouring probabilities; the largest of equals is
    taken. A class that no window, or every window, has keeps 0.5. To be fitted on
    validation subjects.
    """
    thresholds = np.full(p.label.shape[1], HALF)
    for k, own in enumerate(p.label.T):
        known = own >= 0
        gold = own[known] == 1
        if not gold.any() or gold.all():
            continue
        true, decided, score = _operating_points(gold, p.prob[known, k].astype(float))
        best = int(np.argmax(2 * true / (decided + gold.sum())))
        below = score[best + 1] if best + 1 < len(score) else 0.0
        thresholds[k] = (score[best] + below) / 2
    return thresholds


def at_thresholds(p: Predictions, thresholds: Float[np.ndarray, " k"]) -> Predictions:
    """Moves thresholds to 0.5, where decisions are made: scores for decisions alone.

    A probability p becomes `p / (2 t)` below the threshold t of its class, and
    `1 - (1 - p) / (2 (1 - t))` from there on.
    """
    t = np.clip(np.asarray(thresholds, np.float64), _FLOOR, 1 - _FLOOR)
    prob = p.prob.astype(np.float64)
    moved = np.where(prob >= t, 1 - (1 - prob) / (2 * (1 - t)), prob / (2 * t))
    # Rounding to float32 may not carry a probability below its threshold up to 0.5.
    limit = np.where(prob >= t, 1.0, np.nextafter(np.float32(HALF), np.float32(0)))
    return p._replace(prob=np.minimum(moved, limit).astype(np.float32))


def cell_confusion(p: Predictions) -> Int64[np.ndarray, "k 2 2"]:
    """Counts known cells of each class by label (rows) and decision (columns)."""
    tp, fp, fn = _counts(p)
    tn = (p.label >= 0).sum(axis=0) - tp - fp - fn
    return np.array([[tn, fp], [fn, tp]], np.int64).transpose(2, 0, 1)


def label_groups(label: Shaped[np.ndarray, "n k"]) -> Int64[np.ndarray, " n"]:
    """Numbers the distinct rows of labels."""
    return np.unique(label, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
