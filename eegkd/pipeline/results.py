"""From predictions to results.json, summary.json, the report and the table."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich import box
from rich.table import Table

from eegkd.config import RunConfig
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate import calibration, events, report
from eegkd.evaluate.agreement import agreement_rows
from eegkd.evaluate.efficiency import latency, throughput
from eegkd.evaluate.events import Detection, WindowTrack
from eegkd.evaluate.measured import (
    Measures,
    average_measured,
    measured_rows,
    routing_of,
)
from eegkd.evaluate.plots import Curve
from eegkd.evaluate.predictions import Predictions, concatenate, with_units
from eegkd.evaluate.report import Example, ModelFacts, ReportContent
from eegkd.evaluate.statistics import Summary, summarise
from eegkd.pipeline.audit import probe_identity
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.fit import Fitted, FoldData
from eegkd.pipeline.folder import write_json
from eegkd.systems.channels import student_columns

SHOWN = ("teacher", "student", "no_teacher")
Folds = Mapping[str, Mapping[int, Sequence[Predictions]]]
"""Model -> seed -> one set of predictions a fold."""


def table_metrics(store: WindowStore) -> tuple[str, ...]:
    """Lists the table's metrics; the verdict is on the first of them."""
    if store.num_classes == 2:
        return ("auroc", "accuracy", "macro_f1")
    return ("balanced_accuracy", "accuracy", "macro_f1", "auroc")


def merged(folds: Folds, store: WindowStore) -> dict[str, list[Predictions]]:
    """Joins the folds of every seed; units are folds where there are no subjects."""
    runs: dict[str, list[Predictions]] = {}
    for model, seeds in folds.items():
        runs[model] = []
        for parts in seeds.values():
            joined = concatenate(list(parts))
            if not store.manifest["has_subjects"]:
                units = [np.full(len(p.label), f"fold{i}") for i, p in enumerate(parts)]
                joined = with_units(joined, np.concatenate(units))
            runs[model].append(joined)
    return runs


def measure_speed(
    kept: Mapping[str, tuple[Program, Fitted]], store: WindowStore, *, runs: int
) -> dict[str, ModelFacts]:
    """Counts parameters and times each trained model: batch 1 and batch 256."""
    facts: dict[str, ModelFacts] = {}
    for model, (program, fitted) in kept.items():
        variables = jax.device_put(fitted.variables)
        used = (*jax.tree.leaves(variables.params), *jax.tree.leaves(variables.state))
        head = jax.tree.leaves(variables.params.get("head", {}))
        signal = np.asarray(store.signal[: min(256, len(store))])

        def call(x: Any, program: Program = program, given: Any = variables) -> None:
            jax.block_until_ready(program.predict(given, {"signal": x}))

        timing = latency(functools.partial(call, signal[:1]), warmup=10, runs=runs)
        speed = throughput(functools.partial(call, signal), len(signal), seconds=0.3)
        facts[model] = ModelFacts(
            parameters=sum(int(x.size) for x in used),
            head=sum(int(x.size) for x in head),
            windows_per_s=speed,
            latency_ms=timing["p50_ms"],
        )
    return facts


def calibrate(test: Folds, val: Folds) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Fits a temperature a fold on validation subjects and applies it to test ones."""
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


def event_classes(store: WindowStore) -> tuple[int, ...]:
    """Returns the classes that are events: all but the background, if there is one."""
    background = store.manifest.get("background")
    if background is None:
        return ()
    return tuple(i for i, name in enumerate(store.classes) if name != background)


def tracks_of(predictions: Predictions, store: WindowStore) -> list[WindowTrack]:
    """Lays a model's probabilities along the recordings they come from."""
    names = {store.classes[i] for i in event_classes(store)}
    recordings = store.manifest["recordings"]
    truths = {
        key: np.array(
            [
                (event["onset_s"], event["onset_s"] + event["duration_s"])
                for event in info["events"]
                if event["label"] in names
            ]
        ).reshape(-1, 2)
        for key, info in recordings.items()
    }
    return events.window_tracks(
        predictions,
        window_s=store.manifest["window_s"],
        durations={key: info["duration_s"] for key, info in recordings.items()},
        truths=truths,
        event_classes=event_classes(store),
    )


@dataclasses.dataclass(frozen=True)
class Events:
    """Detections of one model on every test recording."""

    tracks: list[WindowTrack]
    detections: list[Sequence[Detection]]
    recordings: list[str]
    thresholds: list[float]


def detect_events(
    test: Folds, val: Folds, store: WindowStore, config: RunConfig, model: str
) -> Events:
    """Detects events with a threshold fitted on each fold's validation subjects."""
    found = Events([], [], [], [])
    for p, q in zip(test[model][0], val[model][0], strict=True):
        threshold = config.events.threshold
        if threshold is None:
            threshold = events.fit_threshold(tracks_of(q, store), config.events)
        tracks = tracks_of(p, store)
        found.tracks.extend(tracks)
        found.detections.extend(
            events.detect(t, threshold, config.events) for t in tracks
        )
        found.recordings.extend(np.unique(p.recording).tolist())
        found.thresholds.extend([threshold] * len(tracks))
    return found


def example_of(
    found: Events, store: WindowStore, smooth: int, columns: Sequence[int] = ()
) -> Example:
    """Shows the first test recording that has an event, else the first.

    Args:
        found: By the student.
        store: Its windows.
        smooth: Windows that probabilities are smoothed over.
        columns: Channels that the student sees; () is all.
    """
    with_event = [i for i, track in enumerate(found.tracks) if len(track.truth)]
    i = with_event[0] if with_event else 0
    name = found.recordings[i]
    rows = store.recording_rows(name)
    rows = rows[store.index["on_grid"][rows]]
    names = store.manifest["channels"]
    shown = list(columns or range(len(names)))
    windows = np.asarray(store.signal[rows])[:, shown]
    return Example(
        signal=np.concatenate(list(windows), axis=1),
        channels=[names[i] for i in shown],
        rate=store.manifest["rate"],
        track=found.tracks[i],
        detections=found.detections[i],
        threshold=found.thresholds[i],
        smooth=smooth,
        title=name,
    )


def curves_of(log: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[Curve]]:
    """Sorts logged rows into one curve a training of the shown models."""
    grouped: dict[tuple, dict[int, Mapping[str, Any]]] = {}
    for row in log:
        if row["model"] in SHOWN:
            key = (row["model"], row["fold"], row["seed"])
            # A resumed run logs some steps again: the last word counts.
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


def verdict_note(summary: Summary, metric: str) -> tuple[str, ...]:
    """Says what a teacher added to this student, and how sure that is."""
    found = summary.comparisons[metric].get("no_teacher")
    if found is None:
        return ()
    several = np.isfinite(found.seed_error)
    seeds = f", standard error over seeds {found.seed_error:.3f}" if several else ""
    return (
        f"Student minus no_teacher on {metric}: {found.mean_difference:+.3f} "
        f"({found.low:+.3f} to {found.high:+.3f}), n = {found.n}{seeds}, minimum "
        f"detectable effect {found.mde:.3f}: {found.verdict}.",
    )


def head_room_note(summary: Summary, metric: str) -> tuple[str, ...]:
    """Says so where the teacher is not above the small net: nothing to transfer."""
    means = {r["model"]: r["mean"] for r in summary.rows if r["metric"] == metric}
    teacher, small = means.get("teacher"), means.get("small_net")
    if teacher is None or small is None or teacher > small:
        return ()
    return (
        f"The teacher ({teacher:.3f}) is not above the small net ({small:.3f}): this "
        "run cannot show transfer, whatever the verdict.",
    )


def conclude(
    folder: Path,
    test: Folds,
    val: Folds,
    kept: Mapping[str, tuple[Program, Fitted]],
    first: FoldData,
    config: RunConfig,
    *,
    measured: Mapping[str, Sequence[Measures]],
    log: Sequence[Mapping[str, Any]],
    selection_metric: str,
    leaks: bool,
    record: Mapping[str, Any],
    notes: Sequence[str] = (),
    latency_runs: int = 100,
) -> tuple[Summary, dict[str, ModelFacts]]:
    """Writes results.json, summary.json, report.html; returns what the table shows.

    `kept` holds programs and trainings of the first fold, `first` its windows;
    `measured` what each training of each model measured.
    """
    store = first.store
    runs = merged(test, store)
    metrics = table_metrics(store)
    summary = summarise(runs, metrics, seed=config.seed)
    notes = [*notes, *head_room_note(summary, metrics[0])]
    facts = measure_speed(kept, store, runs=latency_runs)
    calibrated, scores = calibrate(test, val)
    found = (
        detect_events(test, val, store, config, "student")
        if event_classes(store)
        else None
    )
    event_results = (
        {"student": events.szcore_results(found.tracks, found.detections)}
        if found
        else {}
    )
    agreement = agreement_rows(test)
    identity = probe_identity(kept, first, seed=config.seed)
    bayes = store.manifest.get("bayes") or {}
    measures = average_measured(measured)
    summary.rows.extend(measured_rows(measures))
    details = {
        "comparisons": summary.comparisons,
        "calibration": scores,
        "events": event_results,
        "agreement": agreement,
        "identity": {name: found._asdict() for name, found in identity.items()},
        "measured": {
            model: {name: one._asdict() for name, one in own.items()}
            for model, own in measures.items()
        },
        "facts": facts,
        "bayes": bayes,
        "leaks_subjects": leaks,
        "notes": notes,
        **record,
    }
    write_json(folder / "results.json", summary.rows)
    write_json(folder / "summary.json", details)
    content = ReportContent(
        title=f"{record['system']} on {store.manifest['corpus']}",
        corpus=store.manifest["corpus"],
        split=f"{config.split}, {record['num_folds']} folds"
        if config.split != "fixed"
        else "fixed",
        leaks_subjects=leaks,
        has_subjects=store.manifest["has_subjects"],
        seed=config.seed,
        class_names=store.classes,
        metrics=metrics,
        summary=summary,
        facts=facts,
        curves=curves_of(log, selection_metric),
        selection_metric=selection_metric,
        predictions={m: concatenate(list(test[m][0])) for m in SHOWN if m in test},
        calibrated=calibrated,
        temperatures={m: s["temperature"] for m, s in scores.items()},
        example=example_of(found, store, config.events.smooth, student_columns(config))
        if found
        else None,
        event_results=event_results,
        agreement=agreement,
        identity=identity,
        bayes=bayes,
        measured=measures,
        routing=routing_of(log, measures),
        notes=notes,
        config=record,
    )
    report.write_report(folder / "report.html", content)
    return summary, facts


SHORT_NAMES = {"balanced_accuracy": "bal acc", "accuracy": "acc", "macro_f1": "F1"}


def terminal_table(
    summary: Summary, facts: Mapping[str, ModelFacts], metrics: Sequence[str]
) -> Table:
    """Lays out the rows for the terminal; the verdict is on the first metric."""
    title = f"Test subjects; verdict of the student on {metrics[0].replace('_', ' ')}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column(
        SHORT_NAMES.get(metrics[0], metrics[0]), justify="right", no_wrap=True
    )
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for metric in metrics[1:]:
        table.add_column(SHORT_NAMES.get(metric, metric), justify="right", no_wrap=True)
    for name in ("params", "windows/s", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in summary.rows:
        by_model.setdefault(row["model"], {})[row["metric"]] = row
    order = [m for m in report.MODELS if m in by_model]
    order += [m for m in by_model if m not in order]
    for model in order:
        rows, fact = by_model[model], facts.get(model, ModelFacts())
        first = rows[metrics[0]]
        known = first["low"] is not None
        table.add_row(
            model,
            _number(first["mean"], ".3f"),
            f"{first['low']:.3f} to {first['high']:.3f}" if known else "-",
            first["verdict"] or "-",
            *(_number(rows[metric]["mean"], ".3f") for metric in metrics[1:]),
            _number(fact.parameters, ",d"),
            _number(fact.windows_per_s, ",.0f"),
            _number(fact.latency_ms, ".2f"),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
