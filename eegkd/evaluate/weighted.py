"""Metrics of weighted subjects: thousands of draws at the price of a few.

A draw of a bootstrap, or a swap, is a weight per subject. What a metric needs of a
subject's windows is summed once: counts by class and decision, or, for ranks, the pairs
of windows of two subjects that are in order. A draw is then a product of matrices.
Metrics without such a form are computed on the drawn windows themselves.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from eegkd.evaluate.metrics import most_probable, score
from eegkd.evaluate.predictions import Predictions, select

Weighted = Callable[[Float64[np.ndarray, "d n"]], Float64[np.ndarray, " d"]]
"""Weights of the subjects, one row per draw -> the metric of every draw."""
_BLOCK = 64
_FEW = 1000
_CHUNK = 1 << 22


def weighted_metric(
    metric: str, predictions: Predictions, units: Int64[np.ndarray, " n"], num: int
) -> Weighted:
    """Returns `weights -> values` of one metric.

    A weight of 2 counts a subject's windows twice. NaN where the metric is undefined.

    Args:
        metric: Name of one of `metrics.METRICS`.
        predictions: Windows that have a label.
        units: Number of the subject of each window.
        num: Number of subjects.
    """
    several = predictions.label.ndim > 1
    if metric in OF_COUNTS and not several:
        return _by_counts(OF_COUNTS[metric], predictions, units, num)
    ranked = OF_LABELS if several else OF_CLASSES
    if metric in ranked:
        return _one_against_rest(ranked[metric], predictions, units, num)
    return _by_windows(metric, predictions, units)


def _by_windows(
    metric: str, predictions: Predictions, units: Int64[np.ndarray, " n"]
) -> Weighted:
    """Repeats windows by their weights, which have to be whole numbers."""

    def values(weights: np.ndarray) -> np.ndarray:
        found = np.full(len(weights), np.nan)
        for i, own in enumerate(np.rint(weights).astype(np.int64)):
            rows = np.repeat(np.arange(len(units)), own[units])
            if len(rows):
                found[i] = score(select(predictions, rows), [metric])[metric]
        return found

    return values


def _by_counts(
    fn: Callable[[np.ndarray], np.ndarray],
    predictions: Predictions,
    units: Int64[np.ndarray, " n"],
    num: int,
) -> Weighted:
    """Sums each subject's windows by class and decision, f64[n, k, k]."""
    k = predictions.prob.shape[1]
    cell = (units * k + predictions.label) * k + most_probable(predictions.prob)
    counts = np.bincount(cell, minlength=num * k * k).astype(np.float64)
    counts = counts.reshape(num, k * k)

    def values(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return fn((weights @ counts).reshape(-1, k, k))

    return values


def _accuracy(c: Float64[np.ndarray, "d k k"]) -> np.ndarray:
    return np.trace(c, axis1=1, axis2=2) / c.sum(axis=(1, 2))


def _over_present(c: np.ndarray, by_class: np.ndarray) -> np.ndarray:
    """Averages over the classes that the labels hold."""
    present = c.sum(axis=2) > 0
    return np.where(present, by_class, 0).sum(axis=1) / present.sum(axis=1)


def _recalls(c: np.ndarray) -> np.ndarray:
    return np.diagonal(c, axis1=1, axis2=2) / c.sum(axis=2)


def _precisions(c: np.ndarray) -> np.ndarray:
    decided = c.sum(axis=1)
    hits = np.diagonal(c, axis1=1, axis2=2)
    return np.where(decided > 0, hits / np.where(decided > 0, decided, 1), 0)


def _f1s(c: np.ndarray) -> np.ndarray:
    hits = np.diagonal(c, axis1=1, axis2=2)
    return 2 * hits / (c.sum(axis=1) + c.sum(axis=2))


def _weighted_f1(c: np.ndarray) -> np.ndarray:
    true = c.sum(axis=2)
    return np.where(true > 0, _f1s(c) * true, 0).sum(axis=1) / true.sum(axis=1)


def _kappa(c: np.ndarray) -> np.ndarray:
    total = c.sum(axis=(1, 2))
    chance = (c.sum(axis=1) * c.sum(axis=2)).sum(axis=1) / total**2
    # Exact: rounding leaves 1 - p_e at 1e-16 where one class is all there is.
    seen = (c.sum(axis=1) + c.sum(axis=2) > 0).sum(axis=1)
    return np.where(seen > 1, (_accuracy(c) - chance) / (1 - chance), np.nan)


OF_COUNTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": lambda c: _over_present(c, _recalls(c)),
    "macro_recall": lambda c: _over_present(c, _recalls(c)),
    "macro_precision": lambda c: _over_present(c, _precisions(c)),
    "macro_f1": lambda c: _over_present(c, _f1s(c)),
    "weighted_f1": _weighted_f1,
    "kappa": _kappa,
}


def _one_against_rest(
    make: Callable[..., Weighted],
    predictions: Predictions,
    units: Int64[np.ndarray, " n"],
    num: int,
) -> Weighted:
    """Averages a metric of one class against the rest over the classes of a draw.

    Of two classes the second alone counts; of several labels, those that a draw holds
    with both answers.
    """
    label, prob = predictions.label, predictions.prob
    if label.ndim == 1:
        classes = [1] if prob.shape[1] == 2 else np.unique(label).tolist()
        asked = [np.ones(len(label), bool)] * len(classes)
        gold = [label == k for k in classes]
    else:
        classes = list(range(prob.shape[1]))
        asked, gold = list((label >= 0).T), list((label == 1).T)
    forms = [
        make(g[a], prob[a, k].astype(np.float64), units[a], num)
        for k, a, g in zip(classes, asked, gold, strict=True)
        if a.any()
    ]

    def values(weights: np.ndarray) -> np.ndarray:
        each = np.stack([form(weights) for form in forms])
        known = np.isfinite(each)
        with np.errstate(invalid="ignore"):
            return np.where(known, each, 0).sum(axis=0) / known.sum(axis=0)

    return values


def pairs_in_order(
    gold: Bool[np.ndarray, " n"],
    above: Float[np.ndarray, " n"],
    units: Int64[np.ndarray, " n"],
    num: int,
) -> Float64[np.ndarray, "u u"]:
    """Counts the pairs of a true window of one subject above a false one of another.

    A tie counts half. Few windows are compared one by one; many in blocks of a sorted
    list: whole blocks below by a product of histograms, the own block by its offsets.
    """
    total = np.zeros((num, num))
    if len(gold) <= _FEW:
        true, false = above[gold][:, None], above[~gold]
        pairs = (true > false) + 0.5 * (true == false)
        by_true = np.zeros((num, pairs.shape[1]))
        np.add.at(by_true, units[gold], pairs)
        np.add.at(total.T, units[~gold], by_true.T)
        return total
    for first in (gold, ~gold):  # Ties: the false above the true, and the reverse.
        order = np.lexsort((~first, above))
        g, u = gold[order], units[order]
        blocks = -(-len(order) // _BLOCK)
        at = np.arange(len(order)) // _BLOCK * num + u
        true, false = (
            np.bincount(at[x], minlength=blocks * num).reshape(blocks, num)
            for x in (g, ~g)
        )
        below = np.cumsum(false, axis=0) - false
        total += true.T.astype(np.float64) @ below
        for offset in range(1, _BLOCK):
            pair = g[offset:] & ~g[:-offset]
            pair &= np.arange(offset, len(order)) % _BLOCK >= offset
            cell = u[offset:][pair] * num + u[:-offset][pair]
            total += np.bincount(cell, minlength=num * num).reshape(num, num)
    return total / 2


def _auroc(
    gold: np.ndarray, score: np.ndarray, units: np.ndarray, num: int
) -> Weighted:
    ordered = pairs_in_order(gold, score, units, num)
    true, false = (np.bincount(units[x], minlength=num) for x in (gold, ~gold))

    def values(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            above = ((weights @ ordered) * weights).sum(axis=1)
            return above / ((weights @ true) * (weights @ false))

    return values


def _of_curve(
    fn: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[..., Weighted]:
    """Returns the maker of a metric of true and false windows above thresholds."""

    def make(
        gold: np.ndarray, score: np.ndarray, units: np.ndarray, num: int
    ) -> Weighted:
        order = np.argsort(-score, kind="stable")
        g, u = gold[order], units[order]
        last = np.flatnonzero(np.diff(score[order], append=-np.inf))

        def values(weights: np.ndarray) -> np.ndarray:
            found = np.full(len(weights), np.nan)
            step = max(1, _CHUNK // max(1, len(u)))
            for start in range(0, len(weights), step):
                own = weights[start : start + step][:, u]
                true = np.cumsum(own * g, axis=1)[:, last]
                false = np.cumsum(own * ~g, axis=1)[:, last]
                both = (true[:, -1] > 0) & (false[:, -1] > 0)
                found[start : start + step][both] = fn(true[both], false[both])
            return found

        return values

    return make


def _average_precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    recall = true / true[:, -1:]
    above = true + false
    precision = np.where(above > 0, true / np.where(above > 0, above, 1), 0)
    return (np.diff(recall, axis=1, prepend=0) * precision).sum(axis=1)


def _trapezoid(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    recall = true / true[:, -1:]
    above = true + false
    # Nothing is above the first threshold that a draw lacks: precision is 1 there.
    precision = np.where(above > 0, true / np.where(above > 0, above, 1), 1)
    steps = np.diff(recall, axis=1, prepend=0)
    before = np.concatenate([np.ones((len(true), 1)), precision[:, :-1]], axis=1)
    return (steps * (precision + before) / 2).sum(axis=1)


def _at_specificity(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    fpr = false / false[:, -1:]
    found = np.where(fpr <= 0.05 + 1e-9, true / true[:, -1:], 0)
    return found.max(axis=1)


OF_CLASSES: Mapping[str, Callable[..., Weighted]] = {
    "auroc": _auroc,
    "auc_pr_step": _of_curve(_average_precision),
    "auc_pr_trapezoid": _of_curve(_trapezoid),
    "sensitivity_at_specificity": _of_curve(_at_specificity),
}
"""Of windows with one class each: a class against the rest."""
OF_LABELS: Mapping[str, Callable[..., Weighted]] = {
    "macro_auroc": _auroc,
    "macro_ap": _of_curve(_average_precision),
}
"""Of windows with several labels each: a label against its absence."""
