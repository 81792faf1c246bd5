"""Windows of several labels: each class by itself, and decisions by its threshold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eegkd.data.windows.folds import rare_classes
from eegkd.evaluate import multilabel
from eegkd.evaluate.evidence import Assay, Evidence, of_labels
from eegkd.evaluate.metrics import score
from eegkd.evaluate.predictions import Predictions, concatenate
from eegkd.evaluate.report.parts import (
    Html,
    join,
    note,
    number,
    section,
    student_at,
    table,
    words,
)
from eegkd.evaluate.rows import SHOWN, in_order

DECISIONS = ("macro_f1", "micro_f1", "negative_hamming", "exact_match")
BY_CLASS = {
    "auroc": multilabel.class_auroc,
    "ap": multilabel.class_ap,
    "f1": multilabel.class_f1,
}
NOTE = (
    "All test windows together, means over seeds. A class whose known labels are all "
    "equal has no AUROC and no AP (average precision), and the macro means of the "
    "results leave it out; windows of which a class was not asked are left out of it. "
    "Decisions are made at each class's threshold of best F1 on validation subjects. "
    "Rows of several labels are no events in time: none are scored."
)


def decided(
    test: Sequence[Predictions], val: Sequence[Predictions]
) -> tuple[Predictions, np.ndarray]:
    """Moves the thresholds that each fold's validation subjects give to 0.5.

    Returns:
        The predictions of all folds, for decisions alone, and the mean thresholds.
    """
    thresholds = [multilabel.fit_thresholds(q) for q in val]
    parts = map(multilabel.at_thresholds, test, thresholds)
    return concatenate(list(parts)), np.mean(thresholds, axis=0)


def label_scores(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Computes every row's scores of each class, and of its decisions."""
    found = {}
    for name, seeds in evidence.test.items():
        by_class: dict[str, list[np.ndarray]] = {key: [] for key in BY_CLASS}
        decisions, thresholds = [], []
        for seed, test in seeds.items():
            chosen, own = decided(test, evidence.val[name][seed])
            thresholds.append(own)
            decisions.append(score(chosen, DECISIONS))
            whole = concatenate(list(test))
            for key, fn in BY_CLASS.items():
                by_class[key].append(fn(chosen if key == "f1" else whole))
        means = {key: np.mean(values, axis=0) for key, values in by_class.items()}
        found[name] = {
            "classes_used": int(np.isfinite(means["auroc"]).sum()),
            **{key: _numbers(values) for key, values in means.items()},
            "threshold": _numbers(np.mean(thresholds, axis=0)),
            **{
                key: _number(np.mean([values[key] for values in decisions]))
                for key in DECISIONS
            },
        }
    return found


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def positives(evidence: Evidence) -> dict[str, list[int]]:
    """Counts the test windows, and the people, that have each class."""
    seeds = next(iter(evidence.test.values()))
    whole = concatenate(list(next(iter(seeds.values()))))
    has = whole.label == 1
    people = [len(np.unique(whole.subject[column])) for column in has.T]
    asked = (whole.label >= 0).sum(axis=0)
    return {"windows": has.sum(axis=0).tolist(), "people": people,
            "asked": asked.tolist()}  # fmt: skip


def _run(evidence: Evidence) -> dict[str, Any]:
    if not of_labels(evidence):
        return {}
    return {
        "classes": list(evidence.store.classes),
        "positives": positives(evidence),
        "rare": rare_classes(evidence.store, int(evidence.record.get("num_folds", 0))),
        "rows": evidence.once(label_scores),
    }


def _section(result: Mapping[str, Any], evidence: Evidence) -> Html:
    if not result:
        return ""
    rows, counts = result["rows"], result["positives"]
    shown = [name for name in SHOWN if name in rows]
    head = ["class", "windows that have it", "of", "people"]
    head += [f"{words(key)}, {name}" for key in ("auroc", "ap") for name in shown]
    head += [f"F1, {name}" for name in shown]
    body = []
    for k, name in enumerate(result["classes"]):
        cells = [name, *(str(counts[key][k]) for key in ("windows", "asked", "people"))]
        for key in ("auroc", "ap", "f1"):
            cells += [number(rows[model][key][k]) for model in shown]
        body.append(cells)
    notes = [NOTE]
    if result["rare"]:
        few = ", ".join(f"{name} {num}" for name, num in result["rare"].items())
        notes.append(f"Classes that fewer people have than there are folds: {few}.")
    classes = section("Each class", table(head, body), *map(note, notes))
    return join((classes, _decisions(rows)))


def _decisions(rows: Mapping[str, Mapping[str, Any]]) -> Html:
    names = in_order(rows)
    head = ("model", *map(words, DECISIONS), "classes with an AUROC")
    body = [
        (
            name,
            *(number(rows[name][key]) for key in DECISIONS),
            str(rows[name]["classes_used"]),
        )
        for name in names
    ]
    return section("Decisions", table(head, body, marked=student_at(names)))


def _rows(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "metric": metric,
            "mean": found[metric],
            "low": None,
            "high": None,
            "n_subjects": None,
            "seeds": len(evidence.test[model]),
            "verdict": None,
            "reason": "of decisions at fitted thresholds, which are not compared",
        }
        for model, found in evidence.once(label_scores).items()
        for metric in DECISIONS
        if metric not in evidence.task.metrics
    ]


ASSAY = Assay(name="labels", applies=of_labels, run=_run, section=_section, rows=_rows)
