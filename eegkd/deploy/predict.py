"""A run's model on new recordings: windows, probabilities, events."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eegkd.config import RunConfig
from eegkd.data.corpora import SEPARATOR
from eegkd.data.recordings.recording import Recording
from eegkd.data.windows.cutting import Windows, reference_of, window_recording
from eegkd.data.windows.marks import marks_of
from eegkd.data.windows.store import WindowStore
from eegkd.deploy.inputs import Subject
from eegkd.deploy.load import Intake, Model
from eegkd.errors import InputError
from eegkd.evaluate import calibration, events
from eegkd.evaluate.events import Detection, WindowTrack
from eegkd.evaluate.norms import Compared, compare, window_values
from eegkd.evaluate.predictions import Predictions, make_predictions
from eegkd.pipeline.inference import predict_rows
from eegkd.pipeline.norms import passband_of, some_rows
from eegkd.systems.measures import with_measures


class Cut(NamedTuple):
    """A preprocessed recording, cut for a model.

    Attributes:
        subject: Recording as read.
        recording: Preprocessed recording.
        store: Windows of the recording.
        compared: Its values beside those of the model's training recordings; () where
            nothing is known of those.
        marks: What the file marks as bad, and windows without a signal.
    """

    subject: Subject
    recording: Recording
    store: WindowStore
    compared: Sequence[Compared] = ()
    marks: Mapping[str, Any] = {}


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
    compared = _compare(intake, cut, recording)
    store = WindowStore.from_arrays(None, cut.signal, index, facts)
    return Cut(subject, recording, store, compared, marks_of(recording, cut))


def _compare(intake: Intake, cut: Windows, recording: Recording) -> Sequence[Compared]:
    """Compares a recording with those that the model was trained on."""
    norms, origin = intake.norms, recording.origin
    if norms is None or origin is None:
        return ()
    rows = some_rows(np.arange(len(cut.signal)))
    scale = np.ones(cut.signal.shape[:2]) if cut.scale is None else cut.scale
    values = window_values(
        cut.signal[rows],
        recording.rate,
        passband_of(intake.manifest["preprocessing"]),
        scale[rows].astype(np.float64),
    )
    return compare(
        norms,
        values,
        seconds=recording.duration_s,
        rate=origin.rate,
        units=origin.units,
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
    subject, recording, store = cut[:3]
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
    prediction: Prediction,
    classes: Sequence[str],
    temperature: float,
    window_s: float,
    trial_type: Sequence[str] | None = None,
) -> str:
    """Formats calibrated window probabilities as TSV.

    Args:
        prediction: Predictions for a recording.
        classes: Names of the classes.
        temperature: Calibrates the probabilities.
        window_s: Length of a window.
        trial_type: A further column, as BIDS has it: what each window is.
    """
    windows = calibration.apply_temperature(prediction.windows, temperature)
    own = [] if trial_type is None else ["trial_type"]
    lines = ["\t".join(("onset", "duration", *own, *classes))]
    for i, (start, prob) in enumerate(zip(windows.start_s, windows.prob, strict=True)):
        kind = [] if trial_type is None else [trial_type[i]]
        numbers = (f"{p:.4f}" for p in prob)
        lines.append("\t".join((f"{start:.2f}", f"{window_s:.2f}", *kind, *numbers)))
    return "\n".join(lines) + "\n"


def window_classes(
    prediction: Prediction, classes: Sequence[str], thresholds: Sequence[float] = ()
) -> list[str]:
    """Returns each window's class: the likeliest, or all from their thresholds on."""
    prob = prediction.windows.prob
    if not thresholds:
        return [classes[int(i)] for i in prob.argmax(axis=1)]
    has = prob >= np.asarray(thresholds, np.float32)
    pairs = ([name for name, x in zip(classes, row, strict=True) if x] for row in has)
    return [SEPARATOR.join(names) or "n/a" for names in pairs]
