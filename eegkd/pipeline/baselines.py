"""The rows that no distillation touches: a tuned small net and a linear classifier."""

import functools
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from eegkd.evaluate.baselines import band_power, linear_baseline
from eegkd.evaluate.predictions import Predictions, has_label
from eegkd.models import EEGNetConfig
from eegkd.pipeline.folds import FoldData, predictions_of
from eegkd.systems import SignalConfig, System
from eegkd.systems.channels import see_channels
from eegkd.systems.small_net import make_system

LEARNING_RATES = (1e-2, 3e-3, 1e-3)
DROPOUTS = (0.25, 0.5)


class Trial(NamedTuple):
    """Settings that the small net is tried with: its dropout and its rate."""

    dropout: float
    rate: float

    @property
    def structure(self) -> str:
        """Key of the compiled step; the rate is an input of the step."""
        return f"dropout{self.dropout:g}"

    @property
    def name(self) -> str:
        """Part of a folder's name."""
        return f"{self.structure}-rate{self.rate:g}"


TRIALS = tuple(Trial(*both) for both in itertools.product(DROPOUTS, LEARNING_RATES))


def small_nets(
    signal: SignalConfig, columns: tuple[int, ...] = ()
) -> Mapping[str, System]:
    """Builds the system of the small net for each dropout, by `Trial.structure`.

    Args:
        signal: Description of the windows.
        columns: Channels that the net sees, as the student does; () is all.
    """
    found = {}
    for trial in TRIALS:
        net = EEGNetConfig(
            n_chans=len(columns) or signal.n_chans,
            n_outputs=len(signal.classes),
            rate=signal.rate,
            dropout=trial.dropout,
        )
        system = make_system(net, multilabel=signal.multilabel)
        found[trial.structure] = see_channels(system, columns)
    return found


def band_features(
    data: FoldData, rows: np.ndarray, columns: tuple[int, ...] = ()
) -> np.ndarray:
    """Computes the band power of some windows inside their filter's pass band."""
    store = data.store
    signal = np.asarray(store.signal[rows])
    if data.zscore is not None:
        signal = (signal - data.zscore.mean[:, None]) / data.zscore.std[:, None]
    rate = store.manifest["rate"]
    low, high = store.manifest["preprocessing"].get("band") or (0.0, 0.0)
    signal = signal[:, columns] if columns else signal
    return band_power(signal, rate, passband=(low, high))


def linear(
    data: FoldData, seed: int, columns: tuple[int, ...] = ()
) -> tuple[Predictions, Predictions]:
    """Fits band power and logistic regression; returns validation and test."""
    store, fold = data.store, data.fold
    features = functools.partial(band_features, data, columns=columns)
    labels = store.student_labels
    known = fold.train[has_label(labels[fold.train])]
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
