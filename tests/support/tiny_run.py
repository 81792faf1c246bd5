"""A run small enough to test with: six people, three channels, a one-block student.

As a program, `python -m tests.support.tiny_run OUT` runs it, to be killed and resumed.
"""

import dataclasses
import sys

from eegkd.config import TrainConfig
from eegkd.data.windows.folds import make_folds
from eegkd.train.optimiser import OptimConfig
from tests.support.presets import TINY
from tests.support.stores import tiny_store


def tiny_config(out, **changes):
    config = dataclasses.replace(
        TINY,
        out=str(out),
        num_folds=2,
        rows=("alpha_0", "no_teacher", "shuffled_teacher", "linear"),
        train=TrainConfig(epochs=3, batch_size=16, save_every_s=0.2),
        optim=OptimConfig(learning_rate=1e-3),
    )
    return dataclasses.replace(config, **changes)


def run(out, store=None, registered=None, **changes):
    """Runs it; without `registered`, no row is trained that is not asked for."""
    from eegkd.evaluate.rows import REGISTERED
    from eegkd.pipeline.run import run_distillation
    from eegkd.systems.distilclip_eeg import make_system

    store = tiny_store() if store is None else store
    config = tiny_config(out, **changes)
    folds = make_folds(store, config.split, num_folds=config.num_folds)
    if registered is None:
        registered = [row for row in REGISTERED if row in config.rows]
    return run_distillation(make_system, store, folds, config, registered=registered)


if __name__ == "__main__":
    slow = TrainConfig(epochs=60, batch_size=16, save_every_s=0.2)
    run(sys.argv[1], rows=(), train=slow)
