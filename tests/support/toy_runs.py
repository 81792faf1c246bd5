"""Runs of the toy system through the loop; as a program, one that may be killed."""

import dataclasses
import json
import sys

import jax
import numpy as np

from eegkd.train import (
    LoopOptions,
    OptimConfig,
    init_state,
    make_optimiser,
    make_runner,
    make_train_step,
    train,
)
from tests.support import toy

NUM_STEPS = 12
_LOOP = {field.name for field in dataclasses.fields(LoopOptions)}
_LOOP = {field.name for field in dataclasses.fields(LoopOptions)}


class ToyLoader:
    """Batch i is a function of i; `fault` spoils one."""

    def __init__(self, num=1000, fault=None):
        self.next, self.num, self.fault = 0, num, fault

    def __next__(self):
        if self.next >= self.num:
            raise StopIteration
        batch = toy.make_batch(8, self.next)
        if self.next == self.fault:
            batch["signal"][-2] = np.nan
        self.next += 1
        return batch

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


def make_run(runner="single", dropout=0.2, num_steps=NUM_STEPS):
    """Builds a run whose numbers depend on every part of the state."""
    system = toy.make_system(dropout)
    stage = system.stages[1]
    made = toy.make_variables(system)
    tx = make_optimiser(OptimConfig(learning_rate=0.05), num_steps)
    compiled = make_runner(
        runner, lambda axis: make_train_step(system, "student", tx, axis_name=axis)
    )
    state = init_state(stage, made["student"], tx, jax.random.key(5))

    def run(loader=None, **options):
        options = {"num_steps": num_steps} | with_loop_options(options)
        return train(
            compiled,
            state,
            loader or ToyLoader(),
            frozen=made["student"].frozen,
            upstream={"teacher": made["teacher"]},
            **options,
        )

    return run, state


def with_loop_options(given):
    """Arguments of `train`, those of its loop joined in one `LoopOptions`."""
    loop = LoopOptions(**{k: v for k, v in given.items() if k in _LOOP})
    return {k: v for k, v in given.items() if k not in _LOOP} | {"options": loop}


def flat(state):
    """Every array of a state, the key as its bits."""
    state = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def main(folder, out, num_steps, save_every_s):
    run, _ = make_run(num_steps=int(num_steps))
    state, history = run(
        checkpoint_dir=folder,
        save_every_s=float(save_every_s),
        evaluate=lambda state: {
            "loss": float(abs(state.params["out"]["kernel"]).sum())
        },
        eval_every=7,
        progress=lambda step: print(step, flush=True),
    )
    arrays = [*flat(state), *flat(history.best)]
    # A resumed run has read its rows from JSON, whose keys are sorted.
    np.savez(out, *arrays, rows=json.dumps(history.rows, sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
