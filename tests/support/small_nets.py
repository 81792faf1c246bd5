"""One small net of a store, for tests of how trainings go together."""

import dataclasses

from eegkd.data.windows.folds import make_folds
from eegkd.pipeline.baselines import small_nets
from eegkd.pipeline.compiled import make_program
from eegkd.pipeline.folds import fold_data
from eegkd.systems.signal import signal_of


def compiled_net(store, config, steps, *, num_folds):
    """Its program of so many updates, the first fold, and the config of both."""
    train = dataclasses.replace(config.train, max_steps=steps)
    config = dataclasses.replace(config, train=train, signal=signal_of(store))
    fold = make_folds(store, config.split, num_folds=num_folds)[0]
    system = small_nets(config.signal)["dropout0.25"]
    program = make_program(system, "student", config, [len(fold.train)])
    return program, fold_data(store, fold), config
