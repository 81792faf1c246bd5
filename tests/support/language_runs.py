"""A small decoder trained by the runner mesh; as a program, on many devices.

python -m tests.support.language_runs DEVICES FOLDER CASES

CASES as in `fully-lora`: how arrays are cut, and what is trained. Parameters after some
steps of SGD go to FOLDER/CASE.npz, losses among them.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from eegkd.models import LoraConfig, find_linears
from eegkd.models.decoder import Decoder, DecoderConfig
from eegkd.systems.language import language_system
from eegkd.train import init_state, make_runner, make_train_step
from eegkd.train.parallel import mesh
from eegkd.train.sharding import fetch

CFG = DecoderConfig(
    vocab_size=64,
    dim=32,
    depth=3,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    ffn_dim=48,
    qkv_bias=True,
    init_std=0.2,
    remat="full",
)
MIN, STEPS = 64, 3
HOW = {
    "data": functools.partial(mesh, min_size=MIN),
    "fully": functools.partial(mesh, fully_sharded=True, min_size=MIN),
    "tensor": functools.partial(mesh, model=4, min_size=MIN),
    "both": functools.partial(mesh, model=2, fully_sharded=True, min_size=MIN),
}
LORA = LoraConfig(rank=8, alpha=16.0)


def make_batch(seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 64, (16, 12)).astype(np.int32)
    mask = np.arange(12) >= rng.integers(0, 4, (16, 1))
    labels = np.where(mask & (np.arange(12) > 4), ids, -100).astype(np.int32)
    labels[:3] = -100  # Some devices have no targets.
    return {"ids": ids, "mask": mask, "labels": labels}


def train(wrap, what):
    """Some steps; returns the state, the frozen weights as laid out, and losses."""
    module = Decoder(CFG)
    linears = find_linears(module, np.ones((1, 2), np.int32))
    lora = LORA if what == "lora" else None
    system = language_system(module, lora=lora, linears=linears)
    (stage,) = system.stages
    made = stage.init(jax.random.key(0), make_batch(0), {})
    draw = lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape)
    made = made._replace(params=jax.tree.map(draw, made.params))
    tx = optax.sgd(0.3, momentum=0.9)
    runner = wrap(lambda axis: make_train_step(system, "student", tx, axis_name=axis))
    state = runner.place(init_state(stage, made, tx, jax.random.key(2)))
    frozen, losses = runner.place(made.frozen), []
    for i in range(STEPS):
        batch = runner.put(make_batch(i))
        state, metrics = runner.step(state, frozen, {}, batch)
        losses.append(float(metrics["loss"]))
    return state, frozen, losses


def alone(what):
    return flat(*train(lambda make: make_runner("single", make), what))


def flat(state, frozen, losses):
    del frozen
    leaves = jax.tree_util.tree_leaves_with_path(fetch(state.params))
    found = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
    return found | {"losses": np.array(losses)}


def check_layout(state, frozen, how):
    """Every large array is cut: parameters, momentum and frozen weights alike."""
    if how == "data":
        return
    trees = (state.params, state.opt_state, frozen)
    for path, x in jax.tree_util.tree_leaves_with_path(trees):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if x.size < MIN or "norm" in name:
            continue
        # A bias, or an adapter's side that is not cut over heads, has no model axis.
        assert not x.is_fully_replicated or how == "tensor", name
        if name.endswith(("kernel", "embedding")):
            num = {"fully": x.sharding.num_devices, "tensor": 4}.get(how)
            num = num or x.sharding.num_devices
            assert x.addressable_shards[0].data.size * num == x.size, name
        if "layers/" in name and x.ndim > 1:
            assert x.addressable_shards[0].data.shape[0] == x.shape[0], name


def main(devices, folder, cases):
    jax.config.update("jax_num_cpu_devices", int(devices))
    for case in cases.split(","):
        how, _, what = case.partition("-")
        state, frozen, losses = train(HOW[how], what)
        check_layout(state, frozen, how)
        np.savez(Path(folder, f"{case}.npz"), **flat(state, frozen, losses))


if __name__ == "__main__":
    main(*sys.argv[1:])
