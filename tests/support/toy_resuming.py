"""A toy training on real loaders, stopped and resumed on other devices.

python -m tests.support.toy_resuming DEVICES FOLDER RUNNER OPTIMISERS [PORT INDEX NUM]

For every optimiser a whole run leaves FOLDER/OPTIMISER.npz, and one that is stopped
leaves its checkpoints in FOLDER/OPTIMISER.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from eegkd.data.batches.loader import make_loader
from eegkd.errors import Interrupted
from eegkd.train import LoopOptions, init_state, make_train_step, train
from eegkd.train.distributed import connect, first_only, of_first, shard
from eegkd.train.sharding import pick_devices
from tests.support import toy
from tests.support.stores import toy_store
from tests.support.toy_runners import WRAPPED, flat

NUM_STEPS, STOP_AT, BATCH = 12, 5, 32
OPTIMISERS = {"sgd": optax.sgd(0.3), "adamw": optax.adamw(0.01)}


class Recorded:
    """A loader that keeps the windows of every batch it has given out."""

    def __init__(self, loader):
        self.loader, self.ids = loader, []
        self.get_state, self.set_state = loader.get_state, loader.set_state

    def __next__(self):
        batch = next(self.loader)
        self.ids.append(batch["window_id"])
        return batch


def run(runner, optimiser, folder=None, stop_at=None):
    """Trains or resumes; returns the parameters and the windows of every batch."""
    system, tx, store = toy.make_system(), OPTIMISERS[optimiser], toy_store()
    example = {"signal": store.signal[:2]}
    made = {}
    for i, stage in enumerate(system.stages):
        made[stage.name] = stage.init(jax.random.key(i), example, dict(made))
    loader = make_loader(
        store,
        np.arange(len(store)),
        batch_size=BATCH,
        seed=0,
        num_steps=NUM_STEPS,
        shard=shard(),
    )
    recorded, done = Recorded(loader), []
    try:
        state, history = train(
            WRAPPED[runner](
                lambda axis: make_train_step(system, "student", tx, axis_name=axis),
                pick_devices(),
            ),
            init_state(system.stages[1], made["student"], tx, jax.random.key(3)),
            recorded,
            frozen=made["student"].frozen,
            upstream=made,
            num_steps=NUM_STEPS,
            options=LoopOptions(
                checkpoint_dir=folder,
                eval_every=4,
                mode="max",
                stop=stop_at and (lambda: done[-1] >= stop_at),
            ),
            evaluate=lambda state: of_first({"loss": float(state.step)}),
            progress=done.append,
        )
    finally:
        loader.close()
    return flat(state), np.array(recorded.ids), history


def main(devices, folder, runner, optimisers, port="", index="0", num="1"):
    jax.config.update("jax_num_cpu_devices", int(devices) // int(num))
    if port:
        connect(int(num), f"localhost:{port}", int(index))
    for optimiser in optimisers.split(","):
        values, ids, _ = run(runner, optimiser)
        path = Path(folder, f"{optimiser}.npz")
        first_only(functools.partial(np.savez, path, ids=ids, **values))
        try:
            run(runner, optimiser, Path(folder, optimiser), STOP_AT)
        except Interrupted:
            continue
        raise SystemExit("It was not stopped.")


if __name__ == "__main__":
    main(*sys.argv[1:])
