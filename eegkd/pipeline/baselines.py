"""The rows that no distillation touches: a tuned small net and a linear classifier."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from eegkd.config import RunConfig
from eegkd.evaluate.baselines import band_power, linear_baseline
from eegkd.evaluate.metrics import score
from eegkd.evaluate.predictions import Predictions
from eegkd.models import EEGNetConfig
from eegkd.pipeline.compiled import Program, make_program
from eegkd.pipeline.fit import (
    Ahead,
    Fitted,
    FoldData,
    Job,
    one_by_one,
    predictions_of,
    selection_metric,
)
from eegkd.systems import SignalConfig
from eegkd.systems.channels import see_channels
from eegkd.systems.small_net import make_system

LEARNING_RATES = (1e-2, 3e-3, 1e-3)
DROPOUTS = (0.25, 0.5)
TRIALS = tuple(itertools.product(DROPOUTS, LEARNING_RATES))


def trial_name(seed: int, dropout: float, rate: float) -> str:
    """Names the folder of one training of the small net."""
    return f"seed{seed}-dropout{dropout:g}-rate{rate:g}"


def small_net_programs(
    signal: SignalConfig,
    config: RunConfig,
    steps: int,
    columns: tuple[int, ...] = (),
) -> dict[float, Program]:
    """Builds one program a dropout; learning rates are inputs of the compiled step.

    Args:
        signal: What the windows are.
        config: The run's.
        steps: Updates of a training.
        columns: Channels that the net sees, as the student does; () is all.
    """
    programs = {}
    for dropout in DROPOUTS:
        net = EEGNetConfig(
            n_chans=len(columns) or signal.n_chans,
            n_outputs=len(signal.classes),
            rate=signal.rate,
            dropout=dropout,
        )
        system = see_channels(make_system(net), columns)
        programs[dropout] = make_program(system, "student", config, steps)
    return programs


def train_small_net(
    programs: dict[float, Program],
    data: FoldData,
    config: RunConfig,
    folder: Path,
    run: Callable[[Program, Job, FoldData], Fitted],
    ahead: Ahead = one_by_one,
) -> Iterator[tuple[str, int, Program, Fitted]]:
    """Tunes on validation with one seed, then trains the chosen one with the others.

    Yields:
        "small_net", the seed, the chosen program and the finished training.
    """

    def job(seed: int, dropout: float, rate: float) -> Job:
        return Job(
            "small_net",
            seed,
            folder / "small_net" / trial_name(seed, dropout, rate),
            labels=data.store.student_labels,
            learning_rate=rate,
        )

    metric = selection_metric(data.store)
    tried = []
    ahead([(programs[d], job(0, d, rate)) for d, rate in TRIALS], data)
    for dropout, rate in TRIALS:
        fitted = run(programs[dropout], job(0, dropout, rate), data)
        tried.append((score(fitted.val, [metric])[metric], dropout, rate, fitted))
    _, dropout, rate, best = max(tried, key=lambda row: np.nan_to_num(row[0], nan=-1))
    yield "small_net", 0, programs[dropout], best
    seeds = range(1, config.num_seeds)
    ahead([(programs[dropout], job(seed, dropout, rate)) for seed in seeds], data)
    for seed in seeds:
        fitted = run(programs[dropout], job(seed, dropout, rate), data)
        yield "small_net", seed, programs[dropout], fitted


def band_features(
    data: FoldData, rows: np.ndarray, columns: tuple[int, ...] = ()
) -> np.ndarray:
    """Computes the band power of some windows inside their filter's pass band.

    Args:
        data: The fold.
        rows: Of its windows.
        columns: Channels; () is all.
    """
    store = data.store
    signal = np.asarray(store.signal[rows])
    if data.zscore is not None:
        signal = (signal - data.zscore.mean[:, None]) / data.zscore.std[:, None]
    passband = store.manifest["preprocessing"].get("band")
    band = tuple(passband) if passband else None
    signal = signal[:, columns] if columns else signal
    return band_power(signal, store.manifest["rate"], passband=band)


def linear(
    data: FoldData, seed: int, columns: tuple[int, ...] = ()
) -> tuple[Predictions, Predictions]:
    """Fits band power and logistic regression; returns validation and test.

    Args:
        data: The fold.
        seed: Of the fit.
        columns: Channels that it sees, as the student does; () is all.
    """
    store, fold = data.store, data.fold
    features = functools.partial(band_features, data, columns=columns)
    labels = store.student_labels
    known = fold.train[labels[fold.train] >= 0]
    val = features(fold.val)
    prob_fn = linear_baseline(
        features(known),
        labels[known],
        val,
        store.labels[fold.val],
        num_classes=store.num_classes,
        seed=seed,
    )
    return (
        predictions_of(data, fold.val, prob_fn(val)),
        predictions_of(data, fold.test, prob_fn(features(fold.test))),
    )
