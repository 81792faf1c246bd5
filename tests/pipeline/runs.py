"""Small finished runs that nobody trained: what predict and evaluate need of one."""

import csv
import dataclasses
import itertools

import jax
import numpy as np

from eegkd.data.config import DataConfig
from eegkd.data.folds import Fold, make_folds
from eegkd.data.prepare import prepare
from eegkd.evaluate.predictions import make_predictions, save_predictions
from eegkd.export.weights import save_variables
from eegkd.models import ConformerConfig
from eegkd.pipeline.config import TrainConfig
from eegkd.pipeline.distill import signal_of
from eegkd.pipeline.folder import open_run, write_json
from eegkd.pipeline.registry import DistilClipRun
from eegkd.pipeline.shapes import stage_shapes
from eegkd.systems import distilclip_eeg
from eegkd.systems.distilclip_config import (
    ProjConfig,
    StudentConfig,
    TextConfig,
)
from tests.data.edf import write_edf

NAMES = ("Fp1", "C3", "Cz", "C4", "O2")
RATE = 100
SEIZURE = (20.0, 40.0)

TINY = DistilClipRun(
    eeg=ConformerConfig(
        dim=16, depth=2, ffn_mult=1, num_heads=2, kernel=5, stem_kernels=(7, 3)
    ),
    text=TextConfig(dim=16, depth=1, num_heads=2, num_prompts=2),
    proj=ProjConfig(dim=8),
    student=StudentConfig(depth=1),
    num_seeds=1,
    rows=("linear",),
    num_folds=3,
    train=TrainConfig(epochs=1, batch_size=8),
)
DATA = DataConfig(
    corpus="folder",
    channels=NAMES,
    rate=64.0,
    band=(0.5, 25.0),
    window_s=2.0,
    workers=1,
)


def noise(seed=0, seconds=60, rate=RATE, num_channels=5):
    """Broadband noise of 30 uV, louder inside the seizure."""
    rng = np.random.default_rng(seed)
    signal = 30 * rng.normal(size=(num_channels, seconds * rate))
    signal[:, round(SEIZURE[0] * rate) : round(SEIZURE[1] * rate)] *= 3
    return signal


def write_folder(folder, *, num_subjects=4, label="seizure"):
    """EDF files of a few persons with a labels.csv: `label` in the middle."""
    folder.mkdir(parents=True)
    rows = [("file", "subject", "onset", "duration", "label")]
    for i in range(num_subjects):
        write_edf(folder / f"p{i}.edf", noise(i), NAMES, rate=RATE)
        span = (SEIZURE[0], SEIZURE[1] - SEIZURE[0])
        rows.append((f"p{i}.edf", f"{i}", *map(str, span), label))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def random_variables(shapes, rng):
    """Fills shapes with small numbers, which is faster than compiling `init`."""

    def draw(x):
        return rng.normal(scale=0.3, size=x.shape).astype(x.dtype)

    state = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes.state)
    return jax.tree.map(draw, shapes)._replace(state=state)


def make_run(folder, recordings, *, data=DATA, seed=0, finished=False, system=TINY):
    """Writes a run folder whose models have random weights.

    Its predictions are right everywhere. Unless `finished`, it has one fold of three,
    with the predictions of all windows.
    """
    data = dataclasses.replace(data, root=str(recordings))
    config = dataclasses.replace(system, data=data, out=str(folder))
    store = prepare(data, folder / "store", progress=False)
    config = dataclasses.replace(config, signal=signal_of(store))
    system = distilclip_eeg.make_system(config)
    record = {
        "system": system.name,
        "run": config,
        "store": {"path": str(store.path), "fingerprint": store.fingerprint},
        "num_folds": config.num_folds,
        "variants": [],
    }
    open_run(folder, record)
    shapes = stage_shapes(system, config.signal)
    rng = np.random.default_rng(seed)
    weights = {name: random_variables(shapes[name].finished, rng) for name in shapes}
    places = {"teacher": "teacher", "student": "student/seed0"}
    every = Fold(0, *[np.arange(len(store))] * 3)
    folds = make_folds(store, num_folds=config.num_folds) if finished else (every,)
    for fold, (name, place) in itertools.product(folds, places.items()):
        target = folder / f"fold{fold.index}" / place
        write_json(target / "done.json", {"seconds": 0.0})
        save_variables(target / "variables.safetensors", weights[name])
        save_predictions(target / "val.npz", right_predictions(store, fold.val, rng))
        save_predictions(target / "test.npz", right_predictions(store, fold.test, rng))
    return folder


def right_predictions(store, rows, rng):
    """At least 0.6 for the true class."""
    labels = store.labels[rows]
    right = np.eye(store.num_classes)[labels]
    noise = rng.dirichlet(np.ones(store.num_classes), len(rows))
    prob = 0.6 * right + 0.4 * noise
    columns = ("subject", "recording_id", "start_s", "window_id")
    return make_predictions(prob, labels, *(store.index[n][rows] for n in columns))
