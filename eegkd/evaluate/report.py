"""One stand-alone HTML page that says what a run found and how far to believe it."""

import base64
import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from eegkd.evaluate import plots
from eegkd.evaluate.calibration import Reliability, calibration_scores, reliability
from eegkd.evaluate.metrics import confusion_matrix
from eegkd.evaluate.plots import Curve
from eegkd.evaluate.report_audit import audit_section
from eegkd.evaluate.report_content import MODELS, Example, ModelFacts, ReportContent
from eegkd.evaluate.report_html import (
    chip,
    count,
    metric_words,
    number,
    p_value,
    table,
)
from eegkd.evaluate.report_measured import measured_section
from eegkd.evaluate.report_style import CSS
from eegkd.evaluate.statistics import Comparison
from eegkd.host.atomic import write_atomic

__all__ = [
    "Curve",
    "Example",
    "ModelFacts",
    "ReportContent",
    "render_report",
    "write_report",
]


def _ordered(names: Sequence[str]) -> list[str]:
    known = [name for name in MODELS if name in names]
    return known + [name for name in names if name not in MODELS]


def _rows_of(content: ReportContent, metric: str) -> dict[str, dict[str, Any]]:
    rows = {r["model"]: r for r in content.summary.rows if r["metric"] == metric}
    return {name: rows[name] for name in _ordered(list(rows))}


def _header(content: ReportContent) -> str:
    units = _rows_of(content, content.metrics[0])
    seeds = max((row["seeds"] for row in units.values()), default=0)
    facts = {
        "corpus": content.corpus,
        "split": content.split,
        "student seeds": str(seeds),
        "run seed": str(content.seed),
    }
    for metric, value in content.bayes.items():
        facts[f"Bayes {plots.words(metric)}"] = number(value)
    facts |= content.details
    items = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()
    )
    stamps = []
    if content.leaks_subjects:
        stamps.append(
            '<div class="stamp leak">leaks subjects: windows of one person are in '
            "training and in test; these numbers do not hold for new people.</div>"
        )
    if not content.has_subjects:
        stamps.append(
            '<div class="stamp warn">no subject split exists: the corpus does not tell '
            "its subjects, so folds are the units and intervals are too narrow.</div>"
        )
    stamps += [f'<div class="stamp warn">{escape(n)}</div>' for n in _warnings(content)]
    return (
        f"<h1>{escape(content.title)}</h1>"
        '<p class="lead">What the student learned from its teacher, and how far this '
        f"run can tell.</p>{''.join(stamps)}<dl>{items}</dl>"
    )


def _warnings(content: ReportContent) -> list[str]:
    metric = content.metrics[0]
    means = {name: row["mean"] for name, row in _rows_of(content, metric).items()}
    notes = list(content.notes)
    teacher, small = means.get("teacher"), means.get("small_net")
    if teacher is not None and small is not None and teacher <= small:
        notes.append(
            f"The teacher's {plots.words(metric)} is not above that of small_net: "
            "this set cannot show transfer."
        )
    return notes


def _size(facts: ModelFacts) -> str:
    """Shows a head apart: a foundation model's is most of it."""
    if not (facts.parameters and facts.head):
        return count(facts.parameters)
    rest = facts.parameters - facts.head
    return (
        f"{count(facts.parameters)}"
        f"<small>{count(rest)}<br>+ head {count(facts.head)}</small>"
    )


def _results(content: ReportContent) -> str:
    primary = content.metrics[0]
    tables = {metric: _rows_of(content, metric) for metric in content.metrics}
    body = []
    for name, row in tables[primary].items():
        facts = content.facts.get(name, ModelFacts())
        cells = [f"<b>{escape(name)}</b><small>{escape(MODELS.get(name, ''))}</small>"]
        for metric in content.metrics:
            one = tables[metric][name]
            span = f"<small>{number(one['low'])} to {number(one['high'])}</small>"
            cells.append(number(one["mean"]) + span)
        cells += [
            chip(row["verdict"]),
            _size(facts),
            count(facts.windows_per_s),
            count(facts.latency_ms),
        ]
        body.append(("student" if name == "student" else "", cells))
    head = [
        "model",
        *map(metric_words, content.metrics),
        f"verdict ({metric_words(primary)})",
    ]
    head += ["parameters", "windows/s", "batch-1 ms"]
    verdict_column = len(content.metrics) + 1
    unit = "subjects" if content.has_subjects else "folds"
    n = max((row["n_subjects"] for row in tables[primary].values()), default=0)
    excluded = {
        f"{plots.words(m)}: {max(r['num_excluded'] for r in rows.values())}"
        for m, rows in tables.items()
        if any(r["num_excluded"] for r in rows.values())
    }
    left_out = f" Left out, with a single class ({', '.join(sorted(excluded))})."
    svg = plots.results_svg(
        list(tables[primary].values()), best_possible=content.bayes.get(primary)
    )
    return (
        "<h2>Results</h2>"
        f"{table(head, body, text_columns=(0, verdict_column))}"
        f'<p class="note">Mean over {n} {unit} with its 95 % t interval; seeds are '
        f"averaged within each first.{left_out if excluded else ''}</p>"
        "<p><b>better</b> and <b>worse</b> say that the student's mean differs from "
        f"this row's model by a paired t-test over {unit} (p &lt; 0.05 after Holm's "
        "correction over the table). <b>undetectable</b> says that this run "
        "cannot tell them apart: an effect below the minimum detectable one (MDE) is "
        "missed more often than one time in five.</p>"
        f"<figure>{svg}</figure>"
    )


def _comparison_cells(name: str, c: Comparison) -> tuple[str, ...]:
    return (
        f"student − {escape(name)}",
        number(c.mean_difference),
        f"{number(c.low)} to {number(c.high)}",
        p_value(c.p_t),
        p_value(c.p_adjusted),
        p_value(c.p_signflip),
        number(c.mde),
        number(c.seed_error),
        str(c.n),
        chip(c.verdict),
    )


def _comparisons(content: ReportContent) -> str:
    head = ("difference of", "mean", "95 % interval", "p (t)", "p (Holm)")
    head += ("p (sign-flip)", "MDE", "error over seeds", "n", "verdict")
    tables = []
    for metric, found in content.summary.comparisons.items():
        body = [("", _comparison_cells(n, found[n])) for n in _ordered(list(found))]
        if body:
            is_first = metric == content.metrics[0]
            tables.append(
                f"<details{' open' if is_first else ''}><summary>{metric_words(metric)}"
                f"</summary>{table(head, body, text_columns=(0, 9))}</details>"
            )
    note = (
        '<p class="note">All but one column take these trainings as given. The '
        "standard error over seeds tells how far the mean would move with others: a "
        "difference of less than about three of it may turn.</p>"
    )
    return f"<h2>Comparisons</h2>{''.join(tables)}{note}" if tables else ""


def _section(title: str, figure: str, caption: str = "") -> str:
    note = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<h2>{title}</h2><figure>{figure}{note}</figure>"


def _calibration(content: ReportContent) -> str:
    tables: dict[str, dict[str, Reliability]] = {}
    errors: dict[str, dict[str, float]] = {}
    body = []
    for name in _ordered(list(content.predictions)):
        states = {"before": content.predictions[name]}
        if name in content.calibrated:
            states["after"] = content.calibrated[name]
        tables[name] = {k: reliability(p) for k, p in states.items()}
        scores = {k: calibration_scores(p) for k, p in states.items()}
        errors[name] = {k: found["ece"] for k, found in scores.items()}
        for state, found in scores.items():
            heat = content.temperatures.get(name) if state == "after" else 1.0
            cells = (escape(name), state, number(heat, 2), *map(number, found.values()))
            body.append(("", cells))
    head = ("model", "temperature", "T", "ECE", "ECE, equal mass", "Brier", "NLL")
    caption = (
        "Bins of five windows or more; area: share of windows. ECE: expected "
        "calibration error, 15 bins. T is fitted on validation subjects."
    )
    figure = _section("Reliability", plots.reliability_svg(tables, errors), caption)
    return figure + table(head, body, text_columns=(0, 1))


def _events(content: ReportContent) -> str:
    if not content.event_results:
        return ""
    body = []
    for name in _ordered(list(content.event_results)):
        for kind, digits in (("event_results", 2), ("sample_results", 0)):
            found = content.event_results[name][kind]
            label = kind.removesuffix("_results")
            keys = ("sensitivity", "precision", "f1")
            numbers = [number(found[key]) for key in keys]
            numbers.append(number(found["fpRate"], digits))
            body.append(("", (escape(name), label, *numbers)))
    figure = ""
    if content.operating:
        svg = plots.operating_svg(content.operating)
        caption = "Every threshold from 0.05 to 0.95, all test recordings together."
        figure = f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"
    head = (
        "model",
        "scored by",
        "sensitivity",
        "precision",
        "F1",
        "false alarms / 24 h",
    )
    return (
        f"<h2>Events</h2>{table(head, body, text_columns=(0, 1))}"
        '<p class="note">SzCORE rules, mean over subjects: 30 s of tolerance before '
        "and 60 s after, events closer than 90 s merged, cut at 5 minutes. For samples "
        f"the last column counts seconds.</p>{figure}"
    )


def _example(example: Example) -> str:
    figure = plots.recording_figure(
        example.signal,
        example.channels,
        example.rate,
        example.track,
        example.detections,
        threshold=example.threshold,
        smooth=example.smooth,
        title=example.title,
    )
    data = base64.b64encode(plots.to_png(figure)).decode()
    caption = (
        "Below, the student's probability of an event, smoothed (black) and raw "
        "(grey), with the threshold fitted on validation subjects."
    )
    source = f"data:image/png;base64,{data}"
    image = f'<img alt="Traces, true and detected events" src="{source}">'
    return _section("An example recording", image, caption)


def render_report(content: ReportContent) -> str:
    """Returns the page; everything it needs is inside."""
    parts = [_header(content), _results(content), _comparisons(content)]
    if content.curves:
        curves = {name: content.curves[name] for name in _ordered(list(content.curves))}
        svg = plots.curves_svg(curves, metric=content.selection_metric)
        parts.append(_section("Training", svg))
    if content.predictions:
        names = _ordered(list(content.predictions))
        counts = {name: confusion_matrix(content.predictions[name]) for name in names}
        svg = plots.confusion_svg(counts, content.class_names)
        parts.append(
            _section("Confusion", svg, "Share of the true class, and windows.")
        )
        parts.append(_calibration(content))
    parts.append(audit_section(content))
    parts.append(measured_section(content))
    parts.append(_events(content))
    if content.example is not None:
        parts.append(_example(content.example))
    config = escape(json.dumps(content.config, indent=2, default=str))
    parts.append(
        '<details class="config"><summary>Configuration</summary>'
        f"<pre>{config}</pre></details>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(content.title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def write_report(path: str | os.PathLike[str], content: ReportContent) -> Path:
    """Writes the report, whole or not at all."""
    return write_atomic(path, render_report(content))
