"""Window metrics, pooled and per subject.

Every metric reads `Predictions` and returns one number; NaN where it is undefined (one
class only). A larger number is a better model: epochs are chosen and verdicts given by
that, so an error enters as its negative. Averages over classes run over the classes
present in the labels. Classes are decided by the largest probability.

Where windows have several labels each, other metrics judge them (`multilabel`);
`macro_f1` and the calibration serve both.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import sklearn
from jaxtyping import Float64, Int64
from sklearn import metrics as sk

from eegkd.errors import InputError
from eegkd.evaluate import multilabel
from eegkd.evaluate.predictions import Predictions, has_label, labelled, select

Metric = Callable[[Predictions], float]


OF_LABELS: Mapping[str, Metric] = {
    "macro_auroc": multilabel.macro_auroc,
    "macro_ap": multilabel.macro_ap,
    "micro_auroc": multilabel.micro_auroc,
    "micro_ap": multilabel.micro_ap,
    "macro_f1": multilabel.macro_f1,
    "micro_f1": multilabel.micro_f1,
    "negative_bce": multilabel.negative_bce,
    "negative_hamming": multilabel.negative_hamming,
    "exact_match": multilabel.exact_match,
}
"""Metrics of windows with several labels each."""


def most_probable(prob: np.ndarray) -> np.ndarray:
    """Returns the class with the largest probability, i64[n]."""
    return prob.argmax(axis=1)


def above_half(prob: np.ndarray) -> np.ndarray:
    """Returns where a label's probability is at least 0.5, bool[n, k]."""
    return prob >= 0.5


def _decide(p: Predictions) -> np.ndarray:
    return most_probable(p.prob)


def accuracy(p: Predictions) -> float:
    """Computes the share of windows whose most probable class is the label."""
    return float(sk.accuracy_score(p.label, _decide(p)))


def _averaged(fn: Callable[..., float], average: str, p: Predictions) -> float:
    present = np.unique(p.label)
    found = fn(p.label, _decide(p), labels=present, average=average, zero_division=0.0)
    return float(found)


macro_precision: Metric = partial(_averaged, sk.precision_score, "macro")
macro_recall: Metric = partial(_averaged, sk.recall_score, "macro")
macro_f1: Metric = partial(_averaged, sk.f1_score, "macro")
weighted_f1: Metric = partial(_averaged, sk.f1_score, "weighted")


def balanced_accuracy(p: Predictions) -> float:
    """Computes the mean recall over the classes present in the labels."""
    return macro_recall(p)


def kappa(p: Predictions) -> float:
    """Computes Cohen's `(p_o - p_e) / (1 - p_e)`; NaN where chance p_e is 1."""
    decided = _decide(p)
    if len(np.unique(np.concatenate([p.label, decided]))) < 2:
        return float("nan")
    return float(sk.cohen_kappa_score(p.label, decided))


def _one_against_rest(
    fn: Callable[[np.ndarray, np.ndarray], float], p: Predictions
) -> float:
    present = np.unique(p.label)
    if len(present) < 2:
        return float("nan")
    classes = [1] if p.prob.shape[1] == 2 else present
    return float(np.mean([fn(p.label == k, p.prob[:, k]) for k in classes]))


def _trapezoid(gold: np.ndarray, score: np.ndarray) -> float:
    precision, recall, _ = sk.precision_recall_curve(gold, score)
    return float(sk.auc(recall, precision))


auroc: Metric = partial(_one_against_rest, sk.roc_auc_score)
auc_pr_trapezoid: Metric = partial(_one_against_rest, _trapezoid)
auc_pr_step: Metric = partial(_one_against_rest, sk.average_precision_score)


def sensitivity_at_specificity(p: Predictions, *, specificity: float = 0.95) -> float:
    """Computes the highest sensitivity with at least this specificity (binary).

    Raises:
        ValueError: If there are more than two classes.
    """
    if p.prob.shape[1] != 2:
        raise ValueError(f"Needs two classes; got {p.prob.shape[1]}.")
    if len(np.unique(p.label)) < 2:
        return float("nan")
    fpr, tpr, _ = sk.roc_curve(p.label, p.prob[:, 1], drop_intermediate=False)
    return float(tpr[fpr <= 1 - specificity + 1e-9].max())


OF_CLASSES: Mapping[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_precision": macro_precision,
    "macro_recall": macro_recall,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "kappa": kappa,
    "auroc": auroc,
    "auc_pr_trapezoid": auc_pr_trapezoid,
    "auc_pr_step": auc_pr_step,
    "sensitivity_at_specificity": sensitivity_at_specificity,
}
"""Metrics of windows with one class each."""


def _by_labels(name: str, p: Predictions, **options: Any) -> float:
    several = p.label.ndim > 1
    own: Mapping[str, Callable[..., float]] = OF_LABELS if several else OF_CLASSES
    if name not in own:
        kind = "several labels each" if several else "one class each"
        raise InputError(
            f"The metric {name} does not judge windows of {kind}: choose from "
            f"{', '.join(own)}."
        )
    return own[name](p, **options)


METRICS: Mapping[str, Callable[..., float]] = {
    name: partial(_by_labels, name) for name in {**OF_CLASSES, **OF_LABELS}
}


def get_metric(name: str) -> Metric:
    """Returns the metric called `name`.

    Raises:
        ValueError: If there is none; the message lists what there is.
    """
    if name not in METRICS:
        raise ValueError(f"No metric {name!r}; there are {', '.join(METRICS)}.")
    return METRICS[name]


def _quiet(fn: Metric, p: Predictions) -> float:
    # Every undefined case is decided above; scikit-learn's notes on them say nothing
    # more. Skipping its argument checks makes thousands of small calls 3x faster.
    with (
        warnings.catch_warnings(),
        sklearn.config_context(skip_parameter_validation=True, assume_finite=True),
    ):
        warnings.simplefilter("ignore", sklearn.exceptions.UndefinedMetricWarning)
        return fn(p)


def score(predictions: Predictions, metrics: Iterable[str]) -> dict[str, float]:
    """Computes metrics over all labelled windows together."""
    kept = labelled(predictions)
    return {name: _quiet(get_metric(name), kept) for name in metrics}


def per_subject(predictions: Predictions, metric: str) -> dict[str, float]:
    """Computes a metric per subject; NaN where undefined, for the caller to count.

    A subject without a labelled window is NaN as well.
    """
    fn, known, values = get_metric(metric), has_label(predictions.label), {}
    for subject in np.unique(predictions.subject):
        own = (predictions.subject == subject) & known
        kept = select(predictions, own)
        values[str(subject)] = _quiet(fn, kept) if own.any() else float("nan")
    return values


def confusion_matrix(predictions: Predictions) -> Int64[np.ndarray, "k k"]:
    """Counts labelled windows by label (rows) and decision (columns)."""
    kept = labelled(predictions)
    classes = np.arange(kept.prob.shape[1])
    return sk.confusion_matrix(kept.label, _decide(kept), labels=classes)


def per_class_recall(predictions: Predictions) -> Float64[np.ndarray, " k"]:
    """Computes the recall of every class; NaN for a class without a window."""
    counts = confusion_matrix(predictions)
    total = counts.sum(axis=1).astype(np.float64)
    return np.divide(
        counts.diagonal(), total, out=np.full(len(total), np.nan), where=total > 0
    )
