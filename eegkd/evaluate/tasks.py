"""Tasks of corpora, which decide how models are selected and judged."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from eegkd.errors import InputError
from eegkd.evaluate.metrics import (
    METRICS,
    OF_CLASSES,
    OF_LABELS,
    above_half,
    most_probable,
)

Kind = Literal["binary", "classes", "labels", "answers"]


class Task(NamedTuple):
    """The choices that follow from the kind of a corpus's labels.

    Attributes:
        kind: One of two classes (binary), one of more (classes), several labels at
            once (labels), or words (answers).
        metrics: Columns of the results table; the verdict is on the first of them.
        monitor: The validation metric that epochs, and tuned rows, are chosen by.
        sampler: How training windows may be drawn: balanced needs classes.
        decide: Function from probabilities to decisions.
        tie: The metric that chooses where the monitor ties or is undefined; "" is none.
    """

    kind: Kind
    metrics: tuple[str, ...]
    monitor: str
    sampler: Literal["balanced", "natural"]
    decide: Callable[[np.ndarray], np.ndarray]
    tie: str = ""


_TASKS: Mapping[str, Task] = {
    task.kind: task
    for task in (
        Task(
            "binary",
            ("auroc", "accuracy", "macro_f1"),
            "auroc",
            "balanced",
            most_probable,
        ),
        Task(
            "classes",
            ("balanced_accuracy", "accuracy", "macro_f1", "auroc"),
            "kappa",
            "balanced",
            most_probable,
        ),
        Task(
            "labels",
            ("macro_auroc", "macro_ap", "negative_bce"),
            "macro_auroc",
            "balanced",
            above_half,
            tie="negative_bce",
        ),
        Task("answers", (), "", "natural", most_probable),
    )
}


def task_of(manifest: Mapping[str, Any]) -> Task:
    """Returns the task of a store: by its labels and classes, or as its corpus says.

    Args:
        manifest: Manifest of the store. Its field `task`, if any, may state a
            `kind`, the `metrics` of the field, and the `monitor`.

    Raises:
        InputError: If the kind or a metric is unknown, if the kind has no metrics of
            its own and none are stated, or if a metric judges other labels.
    """
    stated = manifest.get("task") or {}
    usual = "binary" if len(manifest["classes"]) == 2 else "classes"
    if manifest.get("multilabel"):
        usual = "labels"
    kind = stated.get("kind") or usual
    where = f"The task of corpus {manifest['corpus']}"
    if kind not in _TASKS:
        raise InputError(f"{where} is {kind!r}; choose from {', '.join(_TASKS)}.")
    if manifest.get("multilabel") and kind in ("binary", "classes"):
        raise InputError(
            f"{where} is {kind!r}, and its windows have several labels each: leave "
            "`kind` out of its `task`, or make it 'labels'."
        )
    task = _TASKS[kind]
    metrics = tuple(stated.get("metrics") or task.metrics)
    if not metrics:
        raise InputError(
            f"{where} is {kind!r}, which has no metrics yet; the corpus may name some "
            "in its `task`."
        )
    monitor = stated.get("monitor") or task.monitor or metrics[0]
    known = {"labels": OF_LABELS, "answers": METRICS}.get(kind, OF_CLASSES)
    unknown = [name for name in (*metrics, monitor) if name not in known]
    if unknown:
        raise InputError(
            f"{where} names the metric {unknown[0]!r}; there are {', '.join(known)}."
        )
    return task._replace(metrics=metrics, monitor=monitor)
