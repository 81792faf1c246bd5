"""A run's model on new recordings: windows, probabilities, events."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.config import RunConfig
from eegkd.data.corpora import UNLABELLED, get_corpus
from eegkd.data.recordings.reading import StatedUnit, read_recording
from eegkd.data.recordings.recording import Recording
from eegkd.data.windows.cutting import reference_of, window_recording
from eegkd.data.windows.store import WindowStore
from eegkd.deploy.load import Intake, Model
from eegkd.errors import InputError
from eegkd.evaluate import calibration, events
from eegkd.evaluate.events import Detection, WindowTrack
from eegkd.evaluate.predictions import Predictions, make_predictions
from eegkd.pipeline.inference import predict_rows
from eegkd.systems.measures import with_measures


class Subject(NamedTuple):
    """A recording to predict on, and which of its labels are true events."""

    name: str
    recording: Recording
    event_labels: frozenset[str]


class Cut(NamedTuple):
    """A preprocessed recording, cut for a model.

    Attributes:
        subject: Recording as read.
        recording: Preprocessed recording.
        store: Windows of the recording.
    """

    subject: Subject
    recording: Recording
    store: WindowStore


class Prediction(NamedTuple):
    """Predictions for one recording.

    Attributes:
        recording: Preprocessed recording.
        windows: Probabilities of the windows.
        track: Probability of an event along the recording, with its true events.
        detections: Events found; none without event classes.
    """

    recording: Recording
    windows: Predictions
    track: WindowTrack
    detections: tuple[Detection, ...]


def read_subjects(
    path: Path, intake: Intake, *, corpus: str = "", unit: StatedUnit | None = None
) -> Iterator[Subject]:
    """Reads one recording, or those of a corpus's folder, one at a time.

    Raises:
        InputError: If a recording cannot be read.
    """
    names = (intake.manifest["classes"][i] for i in intake.event_classes)
    if not corpus:
        recording = read_recording(path, units=unit)
        yield Subject(path.name.partition(".")[0], recording, frozenset(names))
        return
    if not path.is_dir():
        raise InputError(
            f"{path} is no folder: with --data.corpus {corpus}, name the folder of its "
            "recordings; a single file needs no corpus."
        )
    # Whose a recording is, and which labels are too short for a window, is no matter.
    free = {"subject_from": "none", "window_s": 1 / intake.manifest["rate"]}
    known = get_corpus(corpus, path, unit=unit, **free)
    labels = frozenset(names)
    if known.background is not None:
        labels = frozenset(known.classes) - {known.background, UNLABELLED}
    for source in known.list_sources(path):
        # Several persons of one file of arrays are "file:person".
        file, *own = source.recording_id.split(":")
        name = "_".join((*Path(file).with_suffix("").parts, *own))
        yield Subject(name, known.read(source), labels)


def cut_subject(intake: Intake, subject: Subject, changes: Mapping[str, Any]) -> Cut:
    """Preprocesses and cuts one recording as in training.

    Args:
        intake: Inputs of the model.
        subject: The recording; its labels serve the score alone.
        changes: Fields of `DataConfig` that differ from the run's.

    Raises:
        InputError: If the recording does not fit the model.
    """
    manifest = intake.manifest
    data = dataclasses.replace(
        intake.data,
        channels=intake.signal.channels,
        rate=manifest["rate"],
        window_s=manifest["window_s"],
        overlap=0.0,
        **changes,
    )
    reference = reference_of(manifest)
    cut, recording = window_recording(subject.recording, data, reference=reference)
    num, several = len(cut.start_s), manifest.get("multilabel")
    index = {
        "recording_id": np.repeat(subject.name, num),
        "subject": np.repeat(subject.name, num),
        "start_s": np.asarray(cut.start_s),
        "label": np.full((num, len(manifest["classes"])) if several else num, -1),
    }
    fields = ("corpus", "classes", "rate", "window_s")
    facts = {name: manifest[name] for name in fields}
    facts["channels"] = intake.signal.channels
    return Cut(
        subject, recording, WindowStore.from_arrays(None, cut.signal, index, facts)
    )


def predict(
    model: Model, subject: Subject, config: RunConfig, changes: Mapping[str, Any]
) -> Prediction:
    """Cuts one recording with `cut_subject`, and runs the model over its windows."""
    return predict_windows(model, cut_subject(model.intake, subject, changes), config)


def predict_windows(model: Model, cut: Cut, config: RunConfig) -> Prediction:
    """Runs a model over the windows of one recording.

    Args:
        model: Trained model.
        cut: Windows of the recording.
        config: Options of the run, for the conversion to events.

    Raises:
        InputError: If the model's probabilities are not finite.
    """
    subject, recording, store = cut
    store = with_measures(model.program.system, store, model.intake.signal)
    rows = np.arange(len(store))
    prob = predict_rows(model.program, model.variables, store, rows, model.zscore)
    if not np.isfinite(prob).all():
        raise InputError(
            f"{subject.recording.source}: the model's probabilities are not finite. "
            "Its training diverged, or a channel is constant: look at the run's "
            "report.html."
        )
    index, intake = store.index, model.intake
    windows = make_predictions(
        prob, store.labels, index["subject"], index["recording_id"], index["start_s"]
    )
    track = WindowTrack(
        start_s=index["start_s"],
        prob=windows.prob[:, list(intake.event_classes)].sum(axis=1, dtype=np.float64),
        window_s=intake.manifest["window_s"],
        duration_s=recording.duration_s,
        truth=_truth(recording, subject.event_labels),
        subject=subject.name,
    )
    found = ()
    if model.threshold is not None:
        found = events.detect(track, model.threshold, config.events)
    return Prediction(recording, windows, track, found)


def _truth(recording: Recording, labels: frozenset[str]) -> np.ndarray:
    spans = [
        (event.onset_s, event.onset_s + event.duration_s)
        for event in recording.events
        if event.label in labels and event.duration_s > 0
    ]
    return np.array(spans, np.float64).reshape(-1, 2)


def window_table(
    prediction: Prediction, classes: Sequence[str], temperature: float, window_s: float
) -> str:
    """Formats calibrated window probabilities as TSV."""
    windows = calibration.apply_temperature(prediction.windows, temperature)
    lines = ["\t".join(("onset", "duration", *classes))]
    for start, prob in zip(windows.start_s, windows.prob, strict=True):
        cells = (f"{start:.2f}", f"{window_s:.2f}", *(f"{p:.4f}" for p in prob))
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"
