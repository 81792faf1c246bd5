"""A run's model on new recordings: windows, probabilities, events."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.config import RunConfig
from eegkd.data.batches.maker import ZScore
from eegkd.data.config import DataConfig
from eegkd.data.corpora import UNLABELLED, get_corpus
from eegkd.data.recordings.reading import StatedUnit, read_recording
from eegkd.data.recordings.recording import Recording
from eegkd.data.windows.cutting import config_of, window_recording
from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate import calibration, events
from eegkd.evaluate.events import Detection, WindowTrack
from eegkd.evaluate.predictions import Predictions, load_predictions, make_predictions
from eegkd.pipeline.compiled import Program, make_program
from eegkd.pipeline.fit import fold_data
from eegkd.pipeline.inference import predict_rows
from eegkd.pipeline.results import event_classes, tracks_of
from eegkd.systems import SignalConfig, System
from eegkd.systems.batches import example_shapes, stage_shapes
from eegkd.systems.channels import as_deployed, needs_all, student_columns
from eegkd.systems.signal import signal_of
from eegkd.train.weights import check_same_shapes, load_variables
from eegkd.typing import Variables


class Model(NamedTuple):
    """A trained model with what it takes to use it.

    Attributes:
        program: Its compiled prediction.
        variables: Its weights.
        signal: What it takes: the channels of its row.
        zscore: Fitted on training windows, where the run asked for that.
        manifest: Of the windows that it was trained on.
        data: How those were preprocessed: new recordings go the same way.
        threshold: Of an event, fitted on validation subjects; None without event
            classes.
        temperature: Of its probabilities, fitted on validation subjects.
        event_classes: Indices of the classes that are events.
    """

    program: Program
    variables: Variables
    signal: SignalConfig
    zscore: ZScore | None
    manifest: Mapping[str, Any]
    data: DataConfig
    threshold: float | None
    temperature: float
    event_classes: tuple[int, ...]


class Subject(NamedTuple):
    """A recording to predict on, and which of its labels are true events."""

    name: str
    recording: Recording
    event_labels: frozenset[str]


class Prediction(NamedTuple):
    """What a model says about one recording.

    Attributes:
        recording: Preprocessed.
        windows: Probabilities of the windows.
        track: Probability of an event along the recording, with its true events.
        detections: Events found; none without event classes.
    """

    recording: Recording
    windows: Predictions
    track: WindowTrack
    detections: tuple[Detection, ...]


def load_model(
    make_system: Callable[[Any], System], config: RunConfig, row: str = "student"
) -> Model:
    """Reads a model of a finished run: fold 0, seed 0.

    Where the student sees a few of its teacher's channels, it takes windows of those.

    Args:
        make_system: Of the run's system.
        config: Of the run, without what only training reads (`Entry.deployed`);
            `config.out` is its folder.
        row: "teacher", "student", or a control of the student's structure.

    Raises:
        InputError: If there is no such model, or its weights do not fit the run's
            configuration.
    """
    folder = _row_folder(Path(config.out), row)
    store = open_store(config)
    config = dataclasses.replace(config, signal=signal_of(store))
    columns = student_columns(config)
    system = make_system(config)
    stages = [stage.name for stage in system.stages]
    stage = row if row in stages else stages[-1]
    zscore = _zscore(store, config)
    if columns and stage == stages[-1]:
        config = as_deployed(config)
        system = make_system(config)
        chosen = list(columns)
        zscore = zscore and ZScore(zscore.mean[chosen], zscore.std[chosen])
    weights = folder / "variables.safetensors"
    variables = load_variables(weights)
    expected = stage_shapes(system, config.signal)[stage].finished
    unread = _unread(system, stage, expected, config.signal)
    variables = _without(unread, variables)
    check_same_shapes(weights, variables, _without(unread, expected))
    val = load_predictions(folder / "val.npz")
    classes = event_classes(store)
    threshold = config.events.threshold
    if classes and threshold is None:
        threshold = events.fit_threshold(tracks_of(val, store), config.events)
    return Model(
        program=make_program(system, stage, config, 1),
        variables=variables,
        signal=config.signal,
        zscore=zscore,
        manifest=store.manifest,
        data=config_of(store.manifest),
        threshold=threshold if classes else None,
        temperature=calibration.fit_temperature(calibration.to_logits(val), val.label),
        event_classes=classes,
    )


def open_store(config: RunConfig) -> WindowStore:
    """Opens the windows of a run: those named by `--store`, or its own."""
    return WindowStore.open(config.store or Path(config.out) / "store")


def _unread(
    system: System, stage: str, variables: Variables, signal: SignalConfig
) -> frozenset[str]:
    """Names the variables that prediction does not read, such as a stage's texts."""
    batch = {name: example_shapes(signal)[name] for name in system.inputs}
    predict_fn = functools.partial(system.predict, stage)
    jaxpr = jax.make_jaxpr(predict_fn)(variables, batch).jaxpr
    read = {id(var) for equation in jaxpr.eqns for var in equation.invars}
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    pairs = zip(leaves, jaxpr.invars[: len(leaves)], strict=True)
    return frozenset(
        jax.tree_util.keystr(path) for (path, _), var in pairs if id(var) not in read
    )


def _without(names: frozenset[str], variables: Variables) -> Variables:
    return jax.tree_util.tree_map_with_path(
        lambda path, x: None if jax.tree_util.keystr(path) in names else x, variables
    )


def _row_folder(run: Path, row: str) -> Path:
    fold = run / "fold0"
    if not fold.is_dir():
        raise InputError(
            f"{run} holds no trained model yet (no fold0). Finish it with `eegkd "
            f"distill --resume {run}`."
        )
    places = {path.name: path for path in sorted(fold.iterdir()) if path.is_dir()}
    models = {
        name: place
        for name, path in places.items()
        for place in (path, path / "seed0")
        if (place / "done.json").is_file()
    }
    if row not in models:
        known = ", ".join(models) or "none yet"
        raise InputError(
            f"{run} has no finished model {row!r} to predict with (--row): it has "
            f"{known}. An unfinished run goes on with `eegkd distill --resume {run}`."
        )
    return models[row]


def _zscore(store: WindowStore, config: RunConfig) -> ZScore | None:
    """Fits the z-score of fold 0 again, where it was fitted on training windows."""
    if store.manifest["preprocessing"].get("zscore") != "train_set":
        return None
    folds = make_folds(
        store, config.split, num_folds=config.num_folds, seed=config.seed
    )
    return fold_data(store, folds[0]).zscore


def read_subjects(
    path: Path, model: Model, *, corpus: str = "", unit: StatedUnit | None = None
) -> Iterator[Subject]:
    """Reads one recording, or those of a corpus's folder, one at a time.

    Raises:
        InputError: If a recording cannot be read.
    """
    names = (model.manifest["classes"][i] for i in model.event_classes)
    if not corpus:
        recording = read_recording(path, units=unit)
        yield Subject(path.name.partition(".")[0], recording, frozenset(names))
        return
    if not path.is_dir():
        raise InputError(
            f"{path} is no folder: with --data.corpus {corpus}, name the folder of its "
            "recordings; a single file needs no corpus."
        )
    known = get_corpus(corpus, path, unit=unit)
    labels = frozenset(names)
    if known.background is not None:
        labels = frozenset(known.classes) - {known.background, UNLABELLED}
    for source in known.list_sources(path):
        name = "_".join(Path(source.recording_id).with_suffix("").parts)
        yield Subject(name, known.read(source), labels)


def predict(
    model: Model, subject: Subject, config: RunConfig, changes: Mapping[str, Any]
) -> Prediction:
    """Preprocesses one recording as in training, and runs the model over its windows.

    Args:
        model: Trained.
        subject: The recording; its labels serve the score alone.
        config: Of the run: how probabilities become events.
        changes: Fields of `DataConfig` that differ from the run's.

    Raises:
        InputError: If the recording does not fit the model.
    """
    trained, seen = tuple(model.manifest["channels"]), model.signal.channels
    # A reference that is made of all channels needs all, whatever the model sees.
    read = trained if needs_all(model.manifest["preprocessing"]) else seen
    data = dataclasses.replace(
        model.data,
        channels=read,
        rate=model.manifest["rate"],
        window_s=model.manifest["window_s"],
        overlap=0.0,
        **changes,
    )
    cut, recording = window_recording(subject.recording, data)
    if read != seen:
        chosen = [read.index(name) for name in seen]
        cut = cut._replace(signal=cut.signal[:, chosen])
        recording = _choose(recording, chosen)
    start_s = np.asarray(cut.start_s)
    index = {
        "recording_id": np.repeat(subject.name, len(start_s)),
        "subject": np.repeat(subject.name, len(start_s)),
        "start_s": start_s,
        "label": np.full(len(start_s), -1),
    }
    fields = ("corpus", "classes", "rate", "window_s")
    manifest = {name: model.manifest[name] for name in fields} | {"channels": seen}
    store = WindowStore.from_arrays(None, cut.signal, index, manifest)
    rows = np.arange(len(store))
    prob = predict_rows(model.program, model.variables, store, rows, model.zscore)
    if not np.isfinite(prob).all():
        raise InputError(
            f"{subject.recording.source}: the model's probabilities are not finite. "
            "Its training diverged, or a channel is constant: look at the run's "
            "report.html."
        )
    windows = make_predictions(
        prob, store.labels, index["subject"], index["recording_id"], start_s
    )
    track = WindowTrack(
        start_s=start_s.astype(np.float64),
        prob=windows.prob[:, list(model.event_classes)].sum(axis=1, dtype=np.float64),
        window_s=model.manifest["window_s"],
        duration_s=recording.duration_s,
        truth=_truth(recording, subject.event_labels),
        subject=subject.name,
    )
    found = ()
    if model.threshold is not None:
        found = events.detect(track, model.threshold, config.events)
    return Prediction(recording, windows, track, found)


def _choose(recording: Recording, rows: Sequence[int]) -> Recording:
    """Returns some channels of a preprocessed recording."""
    names = tuple(recording.channels[i] for i in rows)
    return dataclasses.replace(
        recording,
        signal=recording.signal[list(rows)],
        channels=names,
        kinds=tuple(recording.kinds[i] for i in rows),
        units=tuple(recording.units[i] for i in rows),
        filled=tuple(name for name in recording.filled if name in names),
    )


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
    """Lays calibrated class probabilities along time, as tab-separated text."""
    windows = calibration.apply_temperature(prediction.windows, temperature)
    lines = ["\t".join(("onset", "duration", *classes))]
    for start, prob in zip(windows.start_s, windows.prob, strict=True):
        cells = (f"{start:.2f}", f"{window_s:.2f}", *(f"{p:.4f}" for p in prob))
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"
