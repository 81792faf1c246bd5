"""Training of one stage: state, step, runners, loop and checkpoints."""

from eegkd.train.loop import History, Loader, train
from eegkd.train.optimiser import OptimConfig, make_optimiser
from eegkd.train.parallel import Runner, make_runner
from eegkd.train.state import TrainState, init_state
from eegkd.train.step import make_train_step

__all__ = [
    "History",
    "Loader",
    "OptimConfig",
    "Runner",
    "TrainState",
    "init_state",
    "make_optimiser",
    "make_runner",
    "make_train_step",
    "train",
]
