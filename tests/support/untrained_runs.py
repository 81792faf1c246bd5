"""Small finished runs that nobody trained: what predict and evaluate need of one."""

import dataclasses
import itertools
import json

import jax
import numpy as np

from eegkd.config import run_config
from eegkd.data.config import DataConfig
from eegkd.data.windows.folds import Fold, make_folds
from eegkd.data.windows.prepare import prepare
from eegkd.evaluate.predictions import make_predictions
from eegkd.pipeline.finished import write_results
from eegkd.pipeline.folder import from_json, open_run
from eegkd.systems import distilclip_eeg
from eegkd.systems.batches import stage_shapes
from eegkd.systems.distilclip_eeg.config import DistilClipConfig
from eegkd.systems.signal import signal_of
from tests.support.presets import TINY
from tests.support.recordings import NAMES

DATA = DataConfig(
    corpus="folder",
    channels=NAMES,
    rate=64.0,
    band=(0.5, 25.0),
    window_s=2.0,
    workers=1,
)


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
        val = right_predictions(store, fold.val, rng)
        test = right_predictions(store, fold.test, rng)
        write_results(target, weights[name], val, test, {"seconds": 0.0})
    return folder


def right_predictions(store, rows, rng):
    """At least 0.6 for the true class."""
    labels = store.labels[rows]
    right = np.eye(store.num_classes)[labels]
    noise = rng.dirichlet(np.ones(store.num_classes), len(rows))
    prob = 0.6 * right + 0.4 * noise
    columns = ("subject", "recording_id", "start_s", "window_id")
    return make_predictions(prob, labels, *(store.index[n][rows] for n in columns))


def read_config(folder):
    record = json.loads((folder / "config.json").read_text())
    config = from_json(run_config(DistilClipConfig), record["run"])
    return dataclasses.replace(config, out=str(folder))
