"""`eegkd predict RECORDING --model RUN`: a recording's events, as table and plot."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.table import Table

from eegkd.commands.options import parse, read_run
from eegkd.config import RunConfig
from eegkd.deploy.load import Model, load_intake, load_model
from eegkd.deploy.predict import (
    Prediction,
    Subject,
    cut_subject,
    predict_windows,
    read_subjects,
    window_table,
)
from eegkd.evaluate.calibration import temper
from eegkd.evaluate.events import to_spans
from eegkd.evaluate.report.recording import prediction_plot
from eegkd.evaluate.scoring import EventScores, pool, score_events
from eegkd.evaluate.szcore import write_szcore_tsv
from eegkd.host.atomic import write_atomic
from eegkd.host.process import tune_process
from eegkd.host.terminal import Terminal


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictData:
    """Reading of the recording; options left empty are those of the run.

    Attributes:
        corpus: RECORDING is the folder of this corpus (scalp, chbmit, folder, ...);
            empty: a file.
        unit: Unit of the file's numbers, where it states none or a wrong one.
        policy: Treatment of channels that the model needs and the recording lacks.
        band: Other band-pass edges in Hz, where the recording's rate is too low.
        notch: Another line frequency in Hz; 0 removes none.
        zscore: Another scope of the normalisation.
    """

    corpus: str = ""
    unit: Literal["uV", "mV", "V"] | None = None
    policy: Literal["error", "interpolate", "mask"] | None = None
    band: tuple[float, float] | None = None
    notch: float | None = None
    zscore: Literal["window", "recording"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """Detect events in a recording with a model of a finished run.

    The recording needs no labels; true events, where it has any, are scored.

    Attributes:
        recording: A file that MNE or WFDB reads, or a folder with --data.corpus.
        model: The run folder.
        row: Row of the model: student, teacher, or a control.
        out: Folder of NAME_events.tsv and NAME.png.
        data: Reading of the recording.
    """

    recording: tyro.conf.Positional[str]
    model: str
    row: str = "student"
    out: str = "predictions"
    data: PredictData = PredictData()


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    options = parse(Predict, args, "predict")
    entry, config = read_run(Path(options.model))
    tune_process()
    deployed = entry.deployed(config)
    intake = load_intake(entry.make_system, deployed, options.row)
    console, out = Terminal(), Path(options.out)
    fields = ("policy", "band", "notch", "zscore")
    given = {name: getattr(options.data, name) for name in fields}
    changes = {name: value for name, value in given.items() if value is not None}
    subjects = read_subjects(
        Path(options.recording),
        intake,
        corpus=options.data.corpus,
        unit=options.data.unit,
    )
    cuts = (cut_subject(intake, subject, changes) for subject in subjects)
    # The first recording is read before the model is built, which takes seconds: a
    # bad file is refused at once.
    first = next(cuts, None)
    if first is None:
        return
    model, scores = load_model(entry.make_system, deployed, options.row), []
    for cut in itertools.chain([first], cuts):
        subject, found = cut.subject, predict_windows(model, cut, config)
        if model.threshold is None:
            _write_windows(out, subject, found, model, console)
        else:
            scores += _write_events(out, subject, found, model, config, console)
    if len(scores) > 1:
        console.print(f"All {len(scores)} recordings: {_words(pool(scores))}.")


def _write_events(
    out: Path,
    subject: Subject,
    found: Prediction,
    model: Model,
    config: RunConfig,
    console: Terminal,
) -> list[EventScores]:
    """Writes the table and the plot; returns the score if true events are known."""
    recording, track = found.recording, found.track
    tsv = write_szcore_tsv(
        out / f"{subject.name}_events.tsv",
        found.detections,
        duration_s=track.duration_s,
    )
    png = prediction_plot(
        out / f"{subject.name}.png",
        recording.signal,
        recording.channels,
        recording.rate,
        track,
        found.detections,
        threshold=model.threshold,
        smooth=config.events.smooth,
        title=subject.name,
    )
    covered = sum(event.duration_s for event in found.detections) / track.duration_s
    table = Table(
        title=f"{subject.name}: events in {track.duration_s:.0f} s",
        caption=f"threshold {model.threshold:.2f}, {covered:.0%} of the time covered",
    )
    for name in ("onset s", "end s", "duration s", "confidence"):
        table.add_column(name, justify="right")
    for event in found.detections:
        table.add_row(
            f"{event.onset_s:.1f}",
            f"{event.onset_s + event.duration_s:.1f}",
            f"{event.duration_s:.1f}",
            f"{event.confidence:.2f}",
        )
    console.print(table)
    if recording.filled:
        console.print(f"Channels filled in: {', '.join(recording.filled)}.")
    scores = []
    if len(track.truth):
        spans = to_spans(found.detections)
        scores.append(score_events(track.truth, spans, track.duration_s))
        console.print(f"Against its {len(track.truth)} true: {_words(scores[0])}.")
    console.print(f"Wrote {tsv} and {png}", soft_wrap=True)
    return scores


def _words(scores: EventScores) -> str:
    return (
        f"{scores.tp} of {scores.num_ref} hit, {scores.fp} false alarms, sensitivity "
        f"{scores.sensitivity:.2f}, {scores.fa_per_24h:.1f} false alarms / 24 h"
    )


def _write_windows(
    out: Path, subject: Subject, found: Prediction, model: Model, console: Terminal
) -> None:
    """Writes probabilities over time, for classes that are no events."""
    manifest = model.intake.manifest
    classes: Any = manifest["classes"]
    text = window_table(found, classes, model.temperature, manifest["window_s"])
    path = write_atomic(out / f"{subject.name}_windows.tsv", text)
    table = Table(title=f"{subject.name}: mean over {len(found.windows.prob)} windows")
    for name in classes:
        table.add_column(name, justify="right")
    prob = found.windows.prob
    table.add_row(*(f"{p:.3f}" for p in prob.mean(axis=0)))
    why = "The run's corpus has no background class"
    if model.thresholds:
        yes = (prob >= np.asarray(model.thresholds, np.float32)).mean(axis=0)
        table.add_row(*(f"{share:.0%}" for share in yes))
        shown = temper(np.asarray(model.thresholds), model.temperature)
        pairs = zip(classes, shown, strict=True)
        limits = ", ".join(f"{name} {limit:.4f}" for name, limit in pairs)
        why = (
            "Below, the share of windows from the class's threshold on, which in the "
            f"file is: {limits}. Windows of this run may have several classes"
        )
    console.print(table)
    console.print(f"{why}, so no events. Wrote {path}", soft_wrap=True)
