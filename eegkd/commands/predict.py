"""`eegkd predict RECORDING --model RUN`: a recording's events, as table and plot."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.table import Table

from eegkd.commands.options import parse, read_run
from eegkd.config import RunConfig
from eegkd.data.windows.marks import describe_marks
from eegkd.deploy.bids import write_description
from eegkd.deploy.inputs import Input, list_inputs, look_at
from eegkd.deploy.load import Intake, Model, load_intake, load_model
from eegkd.deploy.outputs import Place, choose_places, write_sidecar
from eegkd.deploy.predict import (
    Cut,
    Prediction,
    cut_subject,
    predict_windows,
    window_classes,
    window_table,
)
from eegkd.errors import InputError
from eegkd.evaluate.calibration import temper
from eegkd.evaluate.events import to_spans
from eegkd.evaluate.report.recording import prediction_plot
from eegkd.evaluate.scoring import EventScores, pool, score_events
from eegkd.evaluate.szcore import write_szcore_tsv
from eegkd.host.atomic import write_atomic
from eegkd.host.process import tune_process
from eegkd.host.terminal import Terminal

_MOST_VALUES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictData:
    """Reading of the recordings; options left empty are those of the run.

    Attributes:
        corpus: RECORDINGS are folders of this corpus (scalp, chbmit, folder, ...);
            empty: files.
        unit: Unit of the files' numbers, where they state none or a wrong one.
        policy: Treatment of channels that the model needs and a recording lacks.
        band: Other band-pass edges in Hz, where a recording's rate is too low.
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
    """Detect events in recordings with a model of a finished run.

    Recordings need no labels; true events, where they have any, are scored. One that
    is unlike those that the model was trained on is said to be so. One that cannot be
    read is left out, and named at the end. The output of a recording of a BIDS dataset
    is a derivative dataset.

    Attributes:
        recordings: Files that MNE or WFDB reads, or folders with --data.corpus.
        model: The run folder.
        row: Row of the model: student, teacher, or a control.
        out: Folder of NAME_events.tsv, its sidecar NAME_events.json and NAME.png.
        data: Reading of the recordings.
    """

    recordings: tyro.conf.Positional[tuple[str, ...]]
    model: str
    row: str = "student"
    out: str = "predictions"
    data: PredictData = PredictData()


def main(args: Sequence[str]) -> None:
    """Runs the verb.

    Raises:
        InputError: If a recording was left out: after all others are done.
    """
    options = parse(Predict, args, "predict")
    if not options.recordings:
        raise InputError("Name a recording, or folders of them with --data.corpus.")
    entry, config = read_run(Path(options.model))
    tune_process()
    deployed = entry.deployed(config)
    intake = load_intake(entry.make_system, deployed, options.row)
    console, out = Terminal(), Path(options.out)
    fields = ("policy", "band", "notch", "zscore")
    given = {name: getattr(options.data, name) for name in fields}
    changes = {name: value for name, value in given.items() if value is not None}
    inputs = list_inputs(
        [Path(path) for path in options.recordings],
        intake,
        corpus=options.data.corpus,
        unit=options.data.unit,
    )
    kind = "events" if intake.event_classes else "windows"
    places, links = choose_places(out, inputs, kind)
    if intake.norms is None:
        console.print(
            "Nothing is known of the recordings that the model was trained on, so none "
            f"is compared with them: `eegkd evaluate {options.model}` keeps what can "
            "still be known.",
            soft_wrap=True,
        )
    failed: dict[int, InputError] = {}
    model, scores = None, []
    for i, cut in _cuts(intake, inputs, places, changes, failed, console):
        # The first recording is read before the model is built, which takes seconds: a
        # bad file is refused at once.
        model = model or load_model(entry.make_system, deployed, options.row)
        found = predict_windows(model, cut, config)
        if places[i].bids:
            write_description(out, links)
        if model.threshold is None:
            _write_windows(places[i], cut, found, model, console)
        else:
            scores += _write_events(places[i], cut, found, model, config, console)
    if len(scores) > 1:
        console.print(f"All {len(scores)} recordings: {_words(pool(scores))}.")
    if failed:
        said = " ".join(str(error) for error in failed.values())
        raise InputError(
            f"{len(failed)} of {len(inputs)} recordings were left out, the others are "
            f"done. {said}"
        )


def _cuts(
    intake: Intake,
    inputs: Sequence[Input],
    places: Sequence[Place],
    changes: Mapping[str, Any],
    failed: dict[int, InputError],
    console: Terminal,
) -> Iterator[tuple[int, Cut]]:
    """Looks at all recordings, then reads and cuts one after another.

    Args:
        intake: Inputs of the model.
        inputs: The recordings.
        places: Their output.
        changes: Fields of `DataConfig` that differ from the run's.
        failed: Where those that cannot be read are put, by their number.
        console: Where they are named at once.

    Raises:
        InputError: If the only recording cannot be read.
    """
    alone = len(inputs) == 1

    def leave_out(i: int, error: InputError) -> None:
        console.print(f"Left out: {error}", soft_wrap=True)
        failed[i] = error

    for i, given in enumerate(inputs if not alone else ()):
        try:
            look_at(given)
        except InputError as error:
            leave_out(i, error)
    for i, given in enumerate(inputs):
        if i in failed:
            continue
        try:
            cut = cut_subject(intake, given.read(places[i].name), changes)
        except InputError as error:
            if alone:
                raise
            leave_out(i, error)
        else:
            yield i, cut


def _finish(place: Place, cut: Cut, files: Sequence[Path], console: Terminal) -> None:
    """Writes the sidecar, and prints what there is to say of the recording itself."""
    if cut.recording.filled:
        console.print(f"Channels filled in: {', '.join(cut.recording.filled)}.")
    # The model is asked about every window: no stretch of time is without an answer.
    marks = describe_marks({place.name: cut.marks}, left_out="not to be trusted")
    for what, where in marks:
        console.print(f"{what[0].upper()}{what[1:]}: {where}.", soft_wrap=True)
    unlike = [x for x in cut.compared if x.unlike]
    if unlike:
        shown = sorted(unlike, key=lambda x: -x.times)[:_MOST_VALUES]
        more = len(unlike) - len(shown)
        said = [*(x.words for x in shown), *([f"{more} more"] if more else [])]
        console.print(
            f"Unlike the recordings that the model was trained on: {'; '.join(said)} "
            f"({place.sidecar}).",
            soft_wrap=True,
        )
    facts = {}
    if cut.compared:
        facts["TrainingRecordings"] = {
            "Unlike": [x.name for x in unlike],
            "Values": {x.name: x.facts for x in cut.compared},
        }
    write_sidecar(place, files, **facts)
    console.print(f"Wrote {' and '.join(map(str, files))}", soft_wrap=True)


def _write_events(
    place: Place,
    cut: Cut,
    found: Prediction,
    model: Model,
    config: RunConfig,
    console: Terminal,
) -> list[EventScores]:
    """Writes the table and the plot; returns the score if true events are known."""
    recording, track = found.recording, found.track
    unlike = ", ".join(x.name for x in cut.compared if x.unlike)
    tsv = write_szcore_tsv(
        place.table,
        found.detections,
        duration_s=track.duration_s,
        date_time=recording.date,
        trial_type=place.bids,
    )
    png = prediction_plot(
        place.plot or place.table.with_suffix(".png"),
        recording.signal,
        recording.channels,
        recording.rate,
        track,
        found.detections,
        threshold=model.threshold,
        smooth=config.events.smooth,
        title=place.name,
        note=f"unlike the recordings of training: {unlike}" if unlike else "",
    )
    covered = sum(event.duration_s for event in found.detections) / track.duration_s
    table = Table(
        title=f"{place.name}: events in {track.duration_s:.0f} s",
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
    scores = []
    if len(track.truth):
        spans = to_spans(found.detections)
        scores.append(score_events(track.truth, spans, track.duration_s))
        console.print(f"Against its {len(track.truth)} true: {_words(scores[0])}.")
    _finish(place, cut, (tsv, png), console)
    return scores


def _words(scores: EventScores) -> str:
    return (
        f"{scores.tp} of {scores.num_ref} hit, {scores.fp} false alarms, sensitivity "
        f"{scores.sensitivity:.2f}, {scores.fa_per_24h:.1f} false alarms / 24 h"
    )


def _write_windows(
    place: Place, cut: Cut, found: Prediction, model: Model, console: Terminal
) -> None:
    """Writes probabilities over time, for classes that are no events."""
    manifest = model.intake.manifest
    classes: Any = manifest["classes"]
    kinds = window_classes(found, classes, model.thresholds) if place.bids else None
    text = window_table(found, classes, model.temperature, manifest["window_s"], kinds)
    path = write_atomic(place.table, text)
    table = Table(title=f"{place.name}: mean over {len(found.windows.prob)} windows")
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
    console.print(f"{why}, so no events.", soft_wrap=True)
    _finish(place, cut, (path,), console)
