"""A run's model with its weights, or its inputs without them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from eegkd.config import RunConfig
from eegkd.data.batches.maker import ZScore
from eegkd.data.config import DataConfig
from eegkd.data.windows.cutting import config_of
from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate import calibration, events
from eegkd.evaluate.multilabel import fit_thresholds
from eegkd.evaluate.norms import Norms
from eegkd.evaluate.tracks import event_classes, tracks_of
from eegkd.host.sealed import Verify
from eegkd.pipeline.compiled import Program, inputs_of, make_program
from eegkd.pipeline.finished import (
    VAL,
    WEIGHTS,
    check_results,
    is_finished,
    read_predictions,
)
from eegkd.pipeline.folds import fold_data
from eegkd.pipeline.norms import read_norms
from eegkd.systems import SignalConfig, Stage, System, get_stage, predict_fn
from eegkd.systems.batches import batch_shapes, stage_shapes
from eegkd.systems.channels import as_deployed, student_columns
from eegkd.systems.loaded import with_loaded
from eegkd.systems.signal import signal_of
from eegkd.train.weights import check_same_shapes, load_variables
from eegkd.typing import Variables


class Intake(NamedTuple):
    """Inputs of a trained model, by its run's store and record, without weights.

    Attributes:
        signal: Description of the model's windows.
        manifest: Manifest of its training windows.
        data: Preprocessing of those, which new recordings go through as well.
        event_classes: Indices of the classes that are events.
        norms: What its training recordings were like; None where nobody kept that.
    """

    signal: SignalConfig
    manifest: Mapping[str, Any]
    data: DataConfig
    event_classes: tuple[int, ...]
    norms: Norms | None = None


class Model(NamedTuple):
    """A trained model, ready for use.

    Attributes:
        program: Compiled prediction.
        variables: Weights.
        intake: Description of its inputs.
        zscore: Statistics of the training windows, if the run fitted any.
        threshold: Probability from which on there is an event, fitted on validation
            subjects; None without event classes.
        temperature: Calibrates its probabilities, fitted on validation subjects.
        thresholds: Where a window may have several classes, each one's probability
            from which on it has it, fitted likewise; else ().
    """

    program: Program
    variables: Variables
    intake: Intake
    zscore: ZScore | None
    threshold: float | None
    temperature: float
    thresholds: tuple[float, ...] = ()


def load_intake(
    make_system: Callable[[Any], System], config: RunConfig, row: str = "student"
) -> Intake:
    """Reads the inputs of a model of a finished run, without its weights.

    Args:
        make_system: `config -> System` of the run.
        config: Options of the run, as in `load_model`.
        row: Row of the model in the run.

    Raises:
        InputError: If there is no such model, or it is none of windows alone.
    """
    return _choose(make_system, config, row).intake


def load_model(
    make_system: Callable[[Any], System], config: RunConfig, row: str = "student"
) -> Model:
    """Reads a model of a finished run: fold 0, seed 0.

    Where the student sees a few of its teacher's channels, it takes windows of those.

    Args:
        make_system: `config -> System` of the run.
        config: Options of the run, without those that only training reads
            (`Entry.deployed`); `config.out` is its folder.
        row: "teacher", "student", or a control of the student's structure.

    Raises:
        InputError: If there is no such model, its files were altered, or its weights
            do not fit the run's configuration.
    """
    chosen = _choose(make_system, config, row)
    folder, store, intake = chosen.folder, chosen.store, chosen.intake
    check_results(folder)
    stage = get_stage(chosen.system, chosen.stage)
    variables = load_variables(folder / WEIGHTS)
    expected = stage_shapes(chosen.system, intake.signal)[chosen.stage].finished
    unread = _unread(chosen.system, chosen.stage, expected, intake.signal)
    if stage.load is not None:
        variables = with_loaded(variables, stage.load.read(), expected)
    variables = _without(unread, variables)
    check_same_shapes(folder / WEIGHTS, variables, _without(unread, expected))
    val = read_predictions(folder / VAL, store)
    threshold = config.events.threshold
    if intake.event_classes and threshold is None:
        threshold = events.fit_threshold(tracks_of(val, store.manifest), config.events)
    return Model(
        program=make_program(chosen.system, chosen.stage, chosen.config),
        variables=variables,
        intake=intake,
        zscore=_zscore(store, config, intake.signal.channels),
        threshold=threshold if intake.event_classes else None,
        temperature=calibration.fit_temperature(calibration.to_logits(val), val.label),
        thresholds=tuple(fit_thresholds(val).tolist()) if val.label.ndim > 1 else (),
    )


class _Chosen(NamedTuple):
    """One of a run's models, before its weights are read."""

    folder: Path
    store: WindowStore
    system: System
    stage: str
    config: RunConfig
    intake: Intake


def _choose(
    make_system: Callable[[Any], System], config: RunConfig, row: str
) -> _Chosen:
    folder = _row_folder(Path(config.out), row)
    store = open_store(config, "size")
    config = dataclasses.replace(config, signal=signal_of(store))
    system = make_system(config)
    stages = [stage.name for stage in system.stages]
    stage = row if row in stages else stages[-1]
    _check_alone(get_stage(system, stage), folder)
    if student_columns(config) and stage == stages[-1]:
        config = as_deployed(config)
        system = make_system(config)
    intake = Intake(
        config.signal,
        store.manifest,
        config_of(store.manifest),
        event_classes(store.manifest),
        read_norms(Path(config.out) / "fold0", config.signal.channels),
    )
    return _Chosen(folder, store, system, stage, config, intake)


def _check_alone(stage: Stage, folder: Path) -> None:
    """Refuses a stage that cannot be used on windows of its own."""
    why = ""
    if stage.predict is None:
        why = "it is no classifier of windows"
    elif stage.scope == "recording":
        why = "it looks at whole recordings, through what earlier stages say of them"
    elif not stage.terms:
        why = "it was given to the run, not trained: its own files hold it"
    if why:
        raise InputError(f"{folder}: {stage.name} cannot be used by itself: {why}.")


def open_store(config: RunConfig, verify: Verify = "once") -> WindowStore:
    """Opens the windows of a run: those named by `--store`, or its own."""
    return WindowStore.open(config.store or Path(config.out) / "store", verify)


def _unread(
    system: System, stage: str, variables: Variables, signal: SignalConfig
) -> frozenset[str]:
    """Returns the names of variables that prediction does not read, such as texts."""
    batch = inputs_of(system, get_stage(system, stage))(batch_shapes(system, signal))
    jaxpr = jax.make_jaxpr(predict_fn(system, stage))(variables, batch).jaxpr
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
        if is_finished(place)
    }
    if row not in models:
        known = ", ".join(models) or "none yet"
        raise InputError(
            f"{run} has no finished model {row!r} to predict with (--row): it has "
            f"{known}. An unfinished run goes on with `eegkd distill --resume {run}`."
        )
    return models[row]


def _zscore(
    store: WindowStore, config: RunConfig, channels: Sequence[str]
) -> ZScore | None:
    """Fits the z-score of fold 0 again, if it was fitted on training windows."""
    if store.manifest["preprocessing"].get("zscore") != "train_set":
        return None
    store = open_store(config)  # The first to read its windows.
    folds = make_folds(
        store, config.split, num_folds=config.num_folds, seed=config.seed
    )
    zscore = fold_data(store, folds[0]).zscore
    known = list(store.manifest["channels"])
    columns = [known.index(name) for name in channels]
    return zscore and ZScore(zscore.mean[columns], zscore.std[columns])
