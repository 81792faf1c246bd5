"""Training curves of the shown rows: loss, and the selection metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eegkd.evaluate.evidence import Assay, Evidence, always
from eegkd.evaluate.report import figures
from eegkd.evaluate.report.figures import Curve
from eegkd.evaluate.report.parts import Html, figure, section
from eegkd.evaluate.rows import SHOWN, in_order


def curves_of(log: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[Curve]]:
    """Sorts logged rows into one curve per training of the shown models."""
    grouped: dict[tuple, dict[int, Mapping[str, Any]]] = {}
    for row in log:
        if row["model"] in SHOWN:
            key = (row["model"], row["fold"], row["seed"])
            # A resumed run logs some steps twice: the later row counts.
            grouped.setdefault(key, {}).setdefault(row["step"], {})
            grouped[key][row["step"]] = {**grouped[key][row["step"]], **row}
    curves: dict[str, list[Curve]] = {}
    for (model, _, _), by_step in grouped.items():
        rows = [by_step[step] for step in sorted(by_step)]
        loss = [(r["step"], r["loss"]) for r in rows if "loss" in r]
        judged = [(r["step"], r[f"val/{metric}"]) for r in rows if f"val/{metric}" in r]
        x, y = np.array(loss, float).reshape(-1, 2).T
        u, v = np.array(judged, float).reshape(-1, 2).T
        curves.setdefault(model, []).append(
            Curve(step=x, loss=y, val_step=u, val_metric=v)
        )
    return curves


def _section(result: None, evidence: Evidence) -> Html:
    del result
    metric = evidence.task.monitor
    curves = curves_of(evidence.log, metric)
    if not curves:
        return ""
    shown = {name: curves[name] for name in in_order(curves)}
    return section("Training", figure(figures.curves_svg(shown, metric=metric)))


ASSAY = Assay(
    name="curves", applies=always, run=lambda evidence: None, section=_section
)
