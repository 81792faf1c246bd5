"""The toy system trained by every runner; as a program, one of several processes.

    python -m tests.support.toy_runners DEVICES FOLDER CASES [PORT INDEX NUM]

DEVICES forced ones in all; CASES as in `pmap-1,sharded-4`: a runner and micro-batches.
The parameters go to FOLDER/CASE.npz.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from eegkd.train import init_state, make_train_step
from eegkd.train.distributed import connect, first_only, shard
from eegkd.train.parallel import mesh, pmap, shard_map
from eegkd.train.sharding import fetch, pick_devices
from tests.support import toy

SIZE, STEPS = 32, 5
WRAPPED = {
    "pmap": pmap,
    "shard_map": shard_map,
    "mesh": mesh,
    "sharded": functools.partial(mesh, fully_sharded=True, min_size=1),
    "model": functools.partial(mesh, model=2, min_size=1),
    "both": functools.partial(mesh, model=2, fully_sharded=True, min_size=1),
}


def train_toy(wrap, devices, tx=None, accumulate=1):
    """Runs some steps with SGD; every fourth label, and the last, is unknown."""
    system = toy.make_system()
    made = toy.make_variables(system)
    tx = tx or optax.sgd(0.3)
    runner = wrap(
        lambda axis: make_train_step(
            system, "student", tx, axis_name=axis, accumulate=accumulate
        ),
        devices,
    )
    state = init_state(system.stages[1], made["student"], tx, jax.random.key(3))
    state = runner.place(state)
    frozen, upstream = runner.place((made["student"].frozen, made))
    index, num = shard()
    part = slice(index * SIZE // num, (index + 1) * SIZE // num)
    for i in range(STEPS):
        batch = {k: x[part] for k, x in toy.make_batch(SIZE, i).items()}
        state, _ = runner.step(state, frozen, upstream, runner.put(batch))
    return state


def flat(state):
    """Parameters and statistics by path, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(fetch((state.params, state.state)))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def largest_error(got, want):
    """The largest difference of an array over its largest number."""
    assert got.keys() == want.keys()
    return max(np.max(np.abs(got[k] - x)) / np.max(np.abs(x)) for k, x in want.items())


def main(devices, folder, cases, port="", index="0", num="1"):
    jax.config.update("jax_num_cpu_devices", int(devices) // int(num))
    if port:
        connect(int(num), f"localhost:{port}", int(index))
    for case in cases.split(","):
        name, _, accumulate = case.partition("-")
        state = train_toy(WRAPPED[name], pick_devices(), accumulate=int(accumulate))
        path = Path(folder, f"{case}.npz")
        first_only(functools.partial(np.savez, path, **flat(state)))


if __name__ == "__main__":
    main(*sys.argv[1:])
