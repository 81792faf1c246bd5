"""One training of one model on one fold: train or resume, choose, judge, keep."""

import dataclasses
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.config import RunConfig
from eegkd.data.batches.loader import Loader, make_loader
from eegkd.data.batches.maker import BatchPlan, Cache
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.predictions import Predictions
from eegkd.pipeline.compiled import Program, num_examples
from eegkd.pipeline.finished import (
    TEST,
    VAL,
    WEIGHTS,
    check_results,
    is_finished,
    read_predictions,
    write_results,
)
from eegkd.pipeline.folds import FoldData, predictions_of, selection_metrics, val_score
from eegkd.pipeline.inference import predict_rows, validation_loss
from eegkd.pipeline.probes import Samples, measure_probes, probe_means
from eegkd.systems import get_stage
from eegkd.systems.batches import init_key, prepare_fn, stage_example
from eegkd.systems.loaded import with_loaded, without_loaded
from eegkd.train.distributed import first_only, of_first, shard
from eegkd.train.loop import History, LoopOptions, train
from eegkd.train.optimiser import scale_learning_rate
from eegkd.train.sharding import fetch, on_one_device
from eegkd.train.state import TrainState, init_state
from eegkd.train.weights import check_same_shapes, load_variables
from eegkd.typing import Variables


class Job(NamedTuple):
    """One training, with all that it reads.

    Attributes:
        model: Name of the row in results.json.
        seed: Number of the repetition.
        folder: Folder of checkpoints and results.
        weights: Weights of the terms, where they differ from the program's.
        upstream: Variables of earlier stages by name.
        cache: Outputs of earlier stages: stage -> tensor -> values per store row.
        labels: Labels, aligned with the store's rows; -1 where hidden from this model.
        learning_rate: Peak of the schedule, where it differs from the program's.
        samples: Windows that the probes measure.
        extras: Further arrays of its batches, aligned with the store's rows.
        rows: Rows that batches are drawn from, where they are not the fold's.
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
    rows: np.ndarray | None = None


class Fitted(NamedTuple):
    """A finished training.

    Attributes:
        variables: Finished variables.
        val: Predictions of the validation windows; None for a stage that is not judged.
        test: Predictions of the test windows, likewise.
        seconds: Duration.
        measured: Measurements of the probes.
    """

    variables: Variables
    val: Predictions | None
    test: Predictions | None
    seconds: float
    measured: Mapping[str, Any] = {}


class Start(NamedTuple):
    """Start of a training: a `train.sweep.Member` without its name."""

    state: TrainState
    frozen: Any
    upstream: Mapping[str, Variables]
    loader: Loader


def fit(
    program: Program,
    job: Job,
    data: FoldData,
    config: RunConfig,
    *,
    log: Callable[[Mapping[str, Any]], None],
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Fitted:
    """Trains a model, or reads it if it is finished.

    The state with the best validation score is kept; each epoch is scored once.

    Raises:
        Interrupted: On Ctrl-C, SIGTERM or `stop`, after a checkpoint.
        InputError: If the folder holds another model's weights, or damaged ones.
    """
    if is_finished(job.folder):
        return read_fitted(program, job, config, data.store)
    began = time.monotonic()
    member = start(program, job, data, config)

    def current(state: Any) -> Variables:
        return on_one_device(state).variables(member.frozen)

    def evaluate(state: Any) -> dict[str, float]:
        now = current(state)
        if program.predict is None:
            loss = validation_loss(
                program, now, job.upstream, data.store, data.fold.val, data.zscore,
                job.cache,
            )  # fmt: skip
            return of_first({"val/loss": loss})
        final = program.finish(now)
        prob = _probabilities(program, final, data, data.fold.val, job)
        found = program.probed and probe_means(program.probed, now, job.samples)
        return of_first(val_score(data, prob) | (found or {}))

    try:
        _, history = train(
            program.runner,
            member.state,
            member.loader,
            frozen=member.frozen,
            upstream=member.upstream,
            num_steps=program.num_steps,
            options=loop_options(program, data, job.folder / "checkpoints", stop),
            evaluate=evaluate,
            log=log,
            progress=progress,
        )
    finally:
        # Its threads would wait for ever: a run has hundreds of loaders.
        member.loader.close()
    best = current(history.best)
    return finish(program, job, data, best, history, time.monotonic() - began)


def start(program: Program, job: Job, data: FoldData, config: RunConfig) -> Start:
    """Initialises a model, and opens its batches."""
    store, fold = data.store, data.fold
    seed = _seed(config.seed, fold.index, job.seed)
    stage = get_stage(program.system, program.stage)
    variables = program.init(init_key(seed), job.upstream)
    running = [stage.name, *(set(job.upstream) - set(job.cache or {}))]
    loader = make_loader(
        store,
        fold.train if job.rows is None else job.rows,
        batch_size=program.train.batch_size,
        seed=seed,
        num_steps=program.num_steps,
        plan=BatchPlan(
            sampler=program.train.sampler,
            prepare=prepare_fn(program.system, running),
            zscore=data.zscore,
            labels=job.labels,
            augment=config.augment,
            cache=job.cache,
            extras=job.extras,
            recordings=stage.scope == "recording",
        ),
        shard=shard(),
        workers=program.train.workers,
    )
    # Stages in the cache need no variables: keep those off the device.
    upstream = {} if job.cache else dict(job.upstream)
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
    return Start(state, variables.frozen, upstream, loader)


def loop_options(
    program: Program,
    data: FoldData,
    checkpoint_dir: Path,
    stop: Callable[[], bool] | None = None,
) -> LoopOptions:
    """Returns when to save, and how epochs are chosen."""
    stage, options = get_stage(program.system, program.stage), program.train
    num = num_examples(stage, data.store, data.fold)
    judged = program.predict is not None
    names = [f"val/{name}" for name in selection_metrics(data.store)]
    return LoopOptions(
        checkpoint_dir=checkpoint_dir,
        save_every_s=options.save_every_s,
        eval_every=stage.options.eval_every or max(1, num // options.batch_size),
        monitor=names[0] if judged else "val/loss",
        tie="".join(names[1:]) if judged else "",
        mode="max" if judged else "min",
        stop=stop,
    )


def finish(
    program: Program,
    job: Job,
    data: FoldData,
    variables: Variables,
    history: History,
    seconds: float,
) -> Fitted:
    """Finishes a trained model, predicts validation and test windows, and saves it."""
    began = time.monotonic()
    final = fetch(program.finish(variables))
    val, test = judge_rows(program, final, data, job)
    measured = {}
    if program.probed_end:
        classes = data.store.num_classes
        measured = measure_probes(program.probed_end, variables, job.samples, classes)
    spent = seconds + time.monotonic() - began
    fitted = Fitted(final, val, test, spent, measured)
    first_only(lambda: _write(job, fitted, history))
    return fitted


def judge_rows(
    program: Program, variables: Variables, data: FoldData, job: Job
) -> tuple[Predictions | None, Predictions | None]:
    """Predicts a fold's validation and test windows; None if the stage does not."""
    if program.predict is None:
        return None, None
    val, test = (
        predictions_of(data, rows, _probabilities(program, variables, data, rows, job))
        for rows in (data.fold.val, data.fold.test)
    )
    return val, test


def _probabilities(
    program: Program, variables: Variables, data: FoldData, rows: np.ndarray, job: Job
) -> np.ndarray:
    stage = get_stage(program.system, program.stage)
    # Windows are judged by what they are; recordings also by what came before.
    cache = job.cache if stage.scope == "recording" else None
    return predict_rows(program, variables, data.store, rows, data.zscore, cache)


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
    kept = without_loaded(fitted.variables)
    write_results(job.folder, kept, fitted.val, fitted.test, facts)
    _drop_checkpoints(job.folder)


def _drop_checkpoints(folder: Path) -> None:
    # They hold the optimiser, twice: gigabytes over a hundred trainings.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def read_fitted(
    program: Program, job: Job, config: RunConfig, store: WindowStore
) -> Fitted:
    """Reads a finished training.

    Raises:
        InputError: If a file is gone, altered, or of another model.
    """
    done = check_results(job.folder)
    # The process may have been killed between the end of the training and this.
    _drop_checkpoints(job.folder)
    stage = get_stage(program.system, program.stage)
    batch = stage_example(program.system, stage, config.signal)

    def final(key: Any, batch: Any, upstream: Any, *loaded: Any) -> Variables:
        return program.finish(stage.init(key, batch, upstream, *loaded))

    file = job.folder / WEIGHTS
    variables = load_variables(file)
    loaded = (stage.load.shapes(),) if stage.load else ()
    expected = jax.eval_shape(final, init_key(0), batch, dict(job.upstream), *loaded)
    check_same_shapes(file, variables, without_loaded(expected))
    if stage.load:
        variables = with_loaded(variables, stage.load.read(), expected)
    val, test = (
        read_predictions(job.folder / name, store)
        if (job.folder / name).is_file()
        else None
        for name in (VAL, TEST)
    )
    return Fitted(variables, val, test, done["seconds"], done.get("measured", {}))
