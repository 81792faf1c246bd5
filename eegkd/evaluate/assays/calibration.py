"""Reliability of probabilities, before and after one temperature."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from eegkd.evaluate import calibration
from eegkd.evaluate.assays.confusion import shown
from eegkd.evaluate.evidence import Assay, Evidence, of_classes, of_labels
from eegkd.evaluate.predictions import Predictions, concatenate
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.parts import Html, figure, join, number, section, table
from eegkd.evaluate.rows import SHOWN


def calibrate(
    evidence: Evidence,
) -> tuple[dict[str, Predictions], dict[str, dict[str, Any]]]:
    """Fits a temperature per fold on validation subjects, and applies it to test ones.

    Returns:
        By row, the predictions after it, and scores before and after.
    """
    test, val = evidence.test, evidence.val
    after, scores = {}, {}
    for model in (m for m in SHOWN if m in test):
        parts, temperatures = [], []
        for p, q in zip(test[model][0], val[model][0], strict=True):
            logits = calibration.to_logits(q)
            temperatures.append(calibration.fit_temperature(logits, q.label))
            parts.append(calibration.apply_temperature(p, temperatures[-1]))
        after[model] = concatenate(parts)
        scores[model] = {
            "temperature": float(np.mean(temperatures)),
            "before": calibration.calibration_scores(concatenate(list(test[model][0]))),
            "after": calibration.calibration_scores(after[model]),
        }
    return after, scores


def _section(result: Mapping[str, Mapping[str, Any]], evidence: Evidence) -> Html:
    if not result:
        return ""
    after, _ = evidence.once(calibrate)
    tables, errors, body = {}, {}, []
    for name, before in shown(evidence).items():
        states = {"before": before, "after": after[name]}
        tables[name] = {k: calibration.reliability(p) for k, p in states.items()}
        errors[name] = {k: result[name][k]["ece"] for k in states}
        heat = {"before": 1.0, "after": result[name]["temperature"]}
        for state in states:
            scores = map(number, result[name][state].values())
            body.append((name, state, number(heat[state], 2), *scores))
    head = ("model", "temperature", "T", "ECE", "ECE, equal mass", "Brier", "NLL")
    caption = (
        "Bins of five windows or more; area: share of windows. ECE: expected "
        "calibration error, 15 bins. T is fitted on validation subjects."
    )
    if of_labels(evidence):
        caption += (
            " Of several labels, each is one decision: the probability of yes against "
            "the share of yes, one T for all."
        )
    svg = figures.reliability_svg(tables, errors)
    drawn = section("Reliability", figure(svg, caption))
    return join((drawn, table(head, body, text_columns=(0, 1))))


ASSAY = Assay(
    name="calibration",
    applies=of_classes,
    run=lambda evidence: evidence.once(calibrate)[1],
    section=_section,
)
