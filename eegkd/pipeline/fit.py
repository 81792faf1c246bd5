"""One training of one model on one fold: train or resume, choose, judge, keep."""

import dataclasses
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.config import RunConfig
from eegkd.data.batches.loader import Loader, make_loader
from eegkd.data.batches.maker import BatchPlan, Cache, ZScore, fit_train_zscore
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.metrics import score
from eegkd.evaluate.predictions import (
    Predictions,
    load_predictions,
    make_predictions,
)
from eegkd.evaluate.tasks import task_of
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.finished import (
    TEST,
    VAL,
    WEIGHTS,
    check_results,
    is_finished,
    write_results,
)
from eegkd.pipeline.inference import predict_rows, prepare_fn
from eegkd.pipeline.probes import Samples, measure, watch
from eegkd.systems import get_stage
from eegkd.systems.batches import init_key
from eegkd.train.distributed import first_only, of_first, shard
from eegkd.train.loop import History, LoopOptions, train
from eegkd.train.optimiser import scale_learning_rate
from eegkd.train.sharding import fetch, on_one_device
from eegkd.train.state import TrainState, init_state
from eegkd.train.weights import check_same_shapes, load_variables
from eegkd.typing import Variables

Log = Callable[[Mapping[str, Any]], None]
Ahead = Callable[[Sequence[tuple[Program, "Job"]], "FoldData"], None]
"""May train some of the models to come, before each is asked for by itself."""


class FoldData(NamedTuple):
    """The windows of one fold, and the statistics fitted on its training subjects."""

    store: WindowStore
    fold: Fold
    zscore: ZScore | None


class Job(NamedTuple):
    """One training.

    Attributes:
        model: The row's name in results.json.
        seed: Which repetition.
        folder: Where its checkpoints and results go.
        weights: Of the terms, where they differ from the program's.
        upstream: Variables of earlier stages by name.
        cache: Outputs of earlier stages: stage -> tensor -> values a store row.
        labels: Aligned with the store's rows; -1 where this model may not look.
        learning_rate: The schedule's peak, where it differs from the program's.
        samples: Windows that it is watched on.
        extras: More arrays that its batches hold, aligned with the store's rows.
    """

    model: str
    seed: int
    folder: Path
    weights: Mapping[str, float] | None = None
    upstream: Mapping[str, Variables] = {}
    cache: Cache | None = None
    labels: np.ndarray | None = None
    learning_rate: float | None = None
    samples: Samples = {}
    extras: Mapping[str, np.ndarray] = {}


class Fitted(NamedTuple):
    """A finished training: variables for use, what they say, and what was measured."""

    variables: Variables
    val: Predictions
    test: Predictions
    seconds: float
    measured: Mapping[str, Any] = {}


def fold_data(store: WindowStore, fold: Fold) -> FoldData:
    """Fits what training rows decide, if the store asks for it."""
    fitted = store.manifest["preprocessing"].get("zscore") == "train_set"
    return FoldData(
        store, fold, fit_train_zscore(store, fold.train) if fitted else None
    )


def fit(
    program: Program,
    job: Job,
    data: FoldData,
    config: RunConfig,
    *,
    num_steps: int,
    log: Log,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Fitted:
    """Trains a model, or reads it where it is finished already.

    The state with the best validation score is kept; each epoch is scored once.

    Raises:
        Interrupted: On Ctrl-C, SIGTERM or `stop`, after a checkpoint.
        InputError: If what is there are the weights of another model, or damaged.
    """
    if is_done(job):
        return _read(program, job, data.store)
    start = time.monotonic()
    member = begin(program, job, data, config, num_steps=num_steps)

    def current(state: Any) -> Variables:
        return on_one_device(state).variables(member.frozen)

    def evaluate(state: Any) -> dict[str, float]:
        rows, now = data.fold.val, current(state)
        final = program.finish(now)
        prob = predict_rows(program, final, data.store, rows, data.zscore)
        found = watch(program.watched, now, job.samples) if program.watched else {}
        return of_first(val_score(data, prob) | found)

    try:
        _, history = train(
            program.runner,
            member.state,
            member.loader,
            frozen=member.frozen,
            upstream=member.upstream,
            num_steps=num_steps,
            options=loop_options(data, config, job.folder / "checkpoints", stop),
            evaluate=evaluate,
            log=log,
            progress=progress,
        )
    finally:
        # Its threads would wait for ever: a run has hundreds of loaders.
        member.loader.close()
    return conclude_fit(
        program, job, data, current(history.best), history, time.monotonic() - start
    )


def is_done(job: Job) -> bool:
    """Whether a training has ended and its folder is whole."""
    return is_finished(job.folder)


class Begun(NamedTuple):
    """What a training starts from; a `train.sweep.Member` without its name."""

    state: TrainState
    frozen: Any
    upstream: Mapping[str, Variables]
    loader: Loader


def one_by_one(trainings: Sequence[tuple[Program, Job]], data: FoldData) -> None:
    """Is the `Ahead` that trains nothing ahead of its turn."""
    del trainings, data


def begin(
    program: Program, job: Job, data: FoldData, config: RunConfig, *, num_steps: int
) -> Begun:
    """Draws a model's start, and opens its batches."""
    store, fold = data.store, data.fold
    # Classes that a window may have several of cannot be drawn equally often.
    balanced = task_of(store.manifest).sampler == "balanced"
    seed = _seed(config.seed, fold.index, job.seed)
    variables = program.init(init_key(seed), example(store), job.upstream)
    loader = make_loader(
        store,
        fold.train,
        batch_size=config.train.batch_size,
        seed=seed,
        num_steps=num_steps,
        plan=BatchPlan(
            sampler=config.train.sampler if balanced else "natural",
            prepare=prepare_fn(program.system),
            zscore=data.zscore,
            labels=job.labels,
            augment=config.augment,
            cache=job.cache,
            extras=job.extras,
        ),
        shard=shard(),
        workers=config.train.workers,
    )
    # What the cache holds needs no variables: keep them off the device.
    upstream = {} if job.cache else dict(job.upstream)
    stage = get_stage(program.system, program.stage)
    state = init_state(
        stage,
        variables,
        program.tx,
        jax.random.key(seed),
        weights=job.weights,
        balancer=program.balancer,
    )
    if job.learning_rate is not None:
        factor = job.learning_rate / config.optim.learning_rate
        opt_state = scale_learning_rate(state.opt_state, factor)
        state = dataclasses.replace(state, opt_state=opt_state)
    return Begun(state, variables.frozen, upstream, loader)


def loop_options(
    data: FoldData,
    config: RunConfig,
    checkpoint_dir: Path,
    stop: Callable[[], bool] | None = None,
) -> LoopOptions:
    """Decides when to save, and how epochs are chosen."""
    return LoopOptions(
        checkpoint_dir=checkpoint_dir,
        save_every_s=config.train.save_every_s,
        eval_every=max(1, len(data.fold.train) // config.train.batch_size),
        monitor=f"val/{selection_metric(data.store)}",
        mode="max",
        stop=stop,
    )


def val_score(data: FoldData, prob: np.ndarray) -> dict[str, float]:
    """Scores the probabilities of the validation windows."""
    p = predictions_of(data, data.fold.val, prob)
    metric = selection_metric(data.store)
    return {f"val/{name}": value for name, value in score(p, [metric]).items()}


def conclude_fit(
    program: Program,
    job: Job,
    data: FoldData,
    variables: Variables,
    history: History,
    seconds: float,
) -> Fitted:
    """Finishes a trained model, judges it on validation and test windows, keeps it."""
    start = time.monotonic()
    final = fetch(program.finish(variables))

    def judge(rows: np.ndarray) -> Predictions:
        prob = predict_rows(program, final, data.store, rows, data.zscore)
        return predictions_of(data, rows, prob)

    val, test = judge(data.fold.val), judge(data.fold.test)
    measured = {}
    if program.measured:
        classes = data.store.num_classes
        measured = measure(program.measured, variables, job.samples, classes)
    spent = seconds + time.monotonic() - start
    fitted = Fitted(final, val, test, spent, measured)
    first_only(lambda: _write(job, fitted, history))
    return fitted


def example(store: WindowStore) -> dict[str, np.ndarray]:
    """Returns the batch that initialisations see: shapes matter, values do not."""
    return {"signal": np.asarray(store.signal[:2])}


def predictions_of(data: FoldData, rows: np.ndarray, prob: np.ndarray) -> Predictions:
    """Joins probabilities with where their windows come from."""
    index = data.store.index
    return make_predictions(
        prob,
        data.store.labels[rows],
        index["subject"][rows],
        index["recording_id"][rows],
        index["start_s"][rows],
        index["window_id"][rows],
    )


def selection_metric(store: WindowStore) -> str:
    """Names what epochs are chosen by, which follows from the corpus's task."""
    return task_of(store.manifest).monitor


def _seed(*parts: int) -> int:
    return zlib.crc32(repr(parts).encode())


def _write(job: Job, fitted: Fitted, history: Any) -> None:
    facts = {
        "seconds": fitted.seconds,
        "steps": history.rows[-1]["step"],
        "best_step": history.best_step,
        "best_value": history.best_value,
        "measured": fitted.measured,
    }
    write_results(job.folder, fitted.variables, fitted.val, fitted.test, facts)
    _drop_checkpoints(job.folder)


def _drop_checkpoints(folder: Path) -> None:
    # They hold the optimiser, twice: gigabytes over a hundred trainings.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _read(program: Program, job: Job, store: WindowStore) -> Fitted:
    done = check_results(job.folder)
    # A kill may have come between the end of the training and this.
    _drop_checkpoints(job.folder)

    def final(key: Any, batch: Any, upstream: Any) -> Variables:
        return program.finish(program.init(key, batch, upstream))

    file = job.folder / WEIGHTS
    variables = load_variables(file)
    expected = jax.eval_shape(final, init_key(0), example(store), job.upstream)
    check_same_shapes(file, variables, expected)
    return Fitted(
        variables,
        load_predictions(job.folder / VAL),
        load_predictions(job.folder / TEST),
        done["seconds"],
        done.get("measured", {}),
    )
