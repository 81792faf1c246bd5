"""Agreement of a student's predictions with its teacher's, right or wrong."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from eegkd.evaluate.evidence import Assay, Evidence, Folds, of_classes, of_labels
from eegkd.evaluate.metrics import above_half, most_probable
from eegkd.evaluate.predictions import Predictions, concatenate
from eegkd.evaluate.report.parts import Html, note, number, section, student_at, table
from eegkd.evaluate.rows import in_order

NOTE = (
    "On test windows, labels unread: the share with the teacher's most probable class, "
    "KL(teacher || model) in nats, and the share within each class the teacher names. "
    "A model can agree more and be no better."
)
NOTE_LABELS = (
    "On test windows, labels unread, at a probability of 0.5: the share of decisions "
    "equal to the teacher's, over all classes and in each, and KL(teacher || model) of "
    "one decision in nats, the mean over all. A rare class is agreed upon easily, and "
    "a model can agree more and be no better."
)
_FLOOR = 1e-7


class Agreement(NamedTuple):
    """A model against the teacher, on the same windows.

    Of several labels, every decision between yes and no counts, at 0.5.

    Attributes:
        top1: Share of windows with the same most probable class.
        kl: Mean KL(teacher || model) of the probabilities, in nats.
        by_class: `top1` among the windows the teacher gives to each class, NaN where
            it gives none; of several labels, the decisions on each class.
    """

    top1: float
    kl: float
    by_class: tuple[float, ...]


def agreement(model: Predictions, teacher: Predictions) -> Agreement:
    """Compares a model's probabilities with the teacher's.

    Unlabelled windows count: no label is read.

    Raises:
        ValueError: If the two are of different windows.
    """
    if not np.array_equal(model.window_id, teacher.window_id):
        raise ValueError("Model and teacher were judged on different windows.")
    if model.label.ndim > 1:
        return _of_labels(model, teacher)
    p = np.clip(teacher.prob.astype(np.float64), _FLOOR, 1)
    q = np.clip(model.prob.astype(np.float64), _FLOOR, 1)
    chosen = most_probable(teacher.prob)
    same = most_probable(model.prob) == chosen
    groups = [same[chosen == label] for label in range(p.shape[1])]
    return Agreement(
        top1=float(same.mean()),
        kl=float(np.sum(p * np.log(p / q), axis=1).mean()),
        by_class=tuple(float(g.mean()) if len(g) else float("nan") for g in groups),
    )


def _of_labels(model: Predictions, teacher: Predictions) -> Agreement:
    p, q = (
        np.clip(x.prob.astype(np.float64), _FLOOR, 1 - _FLOOR) for x in (teacher, model)
    )
    same = above_half(model.prob) == above_half(teacher.prob)
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    shares = tuple(map(float, same.mean(axis=0)))
    return Agreement(float(same.mean()), float(kl.mean()), shares)


def agreement_rows(runs: Folds, teacher: str = "teacher") -> dict[str, dict[str, Any]]:
    """Compares every model with the teacher of the same fold; seeds are averaged.

    Args:
        runs: Model -> seed -> one set of predictions per fold.
        teacher: The row that others are compared with; {} if it is not there.

    Returns:
        Model -> the fields of `Agreement`; a class the teacher never names is None.
    """
    if teacher not in runs:
        return {}
    given = concatenate(list(runs[teacher][0]))
    rows: dict[str, dict[str, Any]] = {}
    for name, seeds in runs.items():
        if name == teacher:
            continue
        found = [agreement(concatenate(list(p)), given) for p in seeds.values()]
        classes = np.mean([a.by_class for a in found], axis=0)
        rows[name] = {
            "top1": float(np.mean([a.top1 for a in found])),
            "kl": float(np.mean([a.kl for a in found])),
            "by_class": [None if np.isnan(x) else float(x) for x in classes],
        }
    return rows


def _section(result: Mapping[str, Mapping[str, Any]], evidence: Evidence) -> Html:
    if not result:
        return ""
    names, body = in_order(result), []
    for name in names:
        row = result[name]
        shares = [number(x, 2) for x in row["by_class"]]
        body.append((name, number(row["top1"]), number(row["kl"]), *shares))
    several = of_labels(evidence)
    same = "same decision" if several else "same class"
    head = ("model", same, "KL", *evidence.store.classes)
    content = table(head, body, marked=student_at(names))
    said = note(NOTE_LABELS if several else NOTE)
    return section("Agreement with the teacher", content, said)


ASSAY = Assay(
    name="agreement",
    applies=of_classes,
    run=lambda evidence: agreement_rows(evidence.test),
    section=_section,
)
