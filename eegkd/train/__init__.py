"""Training of one stage: state, step, runners, loop and checkpoints."""

from eegkd.train.gradients import make_gradient_report
from eegkd.train.loop import History, Loader, LoopOptions, train
from eegkd.train.optimiser import OptimConfig, make_optimiser
from eegkd.train.parallel import Runner, make_runner
from eegkd.train.state import TrainState, init_state
from eegkd.train.step import make_train_step
from eegkd.train.sweep import Member, Sweep, make_sweep, sweep_weights, train_many

__all__ = [
    "History",
    "Loader",
    "LoopOptions",
    "Member",
    "OptimConfig",
    "Runner",
    "Sweep",
    "TrainState",
    "init_state",
    "make_gradient_report",
    "make_optimiser",
    "make_runner",
    "make_sweep",
    "make_train_step",
    "sweep_weights",
    "train",
    "train_many",
]
