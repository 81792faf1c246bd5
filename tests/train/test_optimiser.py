import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.train.optimiser import (
    OptimConfig,
    decay_mask,
    make_optimiser,
    make_schedule,
    scale_learning_rate,
)

ones = functools.partial(np.ones, dtype=np.float32)
PARAMS = {
    "dense": {"kernel": ones((2, 2)), "bias": ones(2)},
    "attention": {"query": {"kernel": ones((2, 2, 2)), "bias": ones((2, 2))}},
    "prompts": {"layer_0": ones((4, 2))},
    "norm": {"scale": ones(2)},
    "logit_scale": ones(()),
    "layers": {"ffn_gain": ones((3, 2))},
    "cls_token": ones((1, 2)),
}


@functools.partial(jax.jit, static_argnums=0)
def first_updates(tx, grads, params):
    return tx.update(grads, tx.init(params), params)[0]


def test_decay_acts_on_matrices_alone():
    mask = decay_mask(PARAMS)
    assert mask["dense"] == {"kernel": True, "bias": False}
    assert mask["attention"]["query"] == {"kernel": True, "bias": False}
    assert not mask["prompts"]["layer_0"]
    assert not mask["norm"]["scale"]
    assert not mask["logit_scale"]
    assert not mask["layers"]["ffn_gain"]
    assert not mask["cls_token"]
    config = OptimConfig(weight_decay=0.5, warmup_fraction=0.0, schedule="constant")
    tx = make_optimiser(config, 10)
    updates = first_updates(tx, jax.tree.map(np.zeros_like, PARAMS), PARAMS)
    np.testing.assert_allclose(updates["dense"]["kernel"], -1e-4 * 0.5)
    np.testing.assert_array_equal(updates["prompts"]["layer_0"], 0)


def test_schedule_warms_up_and_falls_to_zero():
    rate = make_schedule(OptimConfig(learning_rate=1.0, warmup_fraction=0.1), 100)
    np.testing.assert_allclose(
        [rate(i) for i in (0, 4, 9, 10)], [0.1, 0.5, 1.0, 1.0], 1e-6
    )
    want = 0.5 * (1 + np.cos(np.pi * 45 / 90))
    np.testing.assert_allclose(rate(55), want, rtol=1e-5)
    np.testing.assert_allclose(rate(100), 0, atol=1e-7)
    ends = OptimConfig(learning_rate=1.0, warmup_fraction=0.1, final_rate=0.01)
    np.testing.assert_allclose(make_schedule(ends, 100)(100), 0.01, rtol=1e-5)
    constant = make_schedule(OptimConfig(warmup_fraction=0.0, schedule="constant"), 9)
    assert constant(0) == constant(8) == 1e-4


def test_matches_optax_adamw_with_clipping():
    config = OptimConfig(learning_rate=1e-2, weight_decay=0.1, warmup_fraction=0.2)
    rate = make_schedule(config, 10)
    mine = make_optimiser(config, 10)
    known = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, weight_decay=0.1, mask=decay_mask),
    )

    @jax.jit
    def step(i, both, states):
        grads = jax.tree.map(lambda x: (i + 1.0) * jnp.cos(3 * x), both[0])
        found = []
        for tx, params, state in zip((mine, known), both, states, strict=True):
            updates, state = tx.update(grads, state, params)
            found.append((optax.apply_updates(params, updates), state))
        return tuple(zip(*found, strict=True))

    both = PARAMS, PARAMS
    states = jax.jit(lambda x: (mine.init(x), known.init(x)))(PARAMS)
    for i in range(4):
        both, states = step(i, both, states)
        np.testing.assert_allclose(optax.tree.get(states[0], "learning_rate"), rate(i))
    params, others = both
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_labelled_groups_have_their_own_rate():

    def label(params):
        labels = jax.tree.map(lambda _: "default", params)
        attention = jax.tree.map(lambda _: "bert", params["attention"])
        return labels | {"attention": attention}

    grads = jax.tree.map(np.ones_like, PARAMS)
    plain, scaled = (
        make_optimiser(OptimConfig(bert_scale=0.1), 10, labels)
        for labels in (None, label)
    )
    want, got = (first_updates(tx, grads, PARAMS) for tx in (plain, scaled))
    kernel = lambda tree: tree["attention"]["query"]["kernel"]
    np.testing.assert_allclose(kernel(got), 0.1 * kernel(want), rtol=1e-6)
    np.testing.assert_allclose(got["dense"]["bias"], want["dense"]["bias"])


def test_layers_have_rates_by_their_depth():
    params = {"in": ones(2), "layers": ones((3, 2, 2)), "out": ones(2)}

    def depths(params):
        return {"in": 0, "layers": np.arange(1, 4), "out": 4}

    plain, decayed = (
        make_optimiser(OptimConfig(layer_decay=decay), 10, depths=depths)
        for decay in (1.0, 0.5)
    )
    want, got = (first_updates(tx, params, params) for tx in (plain, decayed))
    np.testing.assert_allclose(got["in"], want["in"] / 16, rtol=1e-6)
    np.testing.assert_allclose(got["out"], want["out"], rtol=1e-6)
    for i, factor in enumerate((1 / 8, 1 / 4, 1 / 2)):
        np.testing.assert_allclose(
            got["layers"][i], factor * want["layers"][i], rtol=1e-6
        )


@pytest.mark.parametrize(
    "bad",
    [
        {"warmup_fraction": 1.0},
        {"learning_rate": 0.0},
        {"clip_norm": -1.0},
        {"layer_decay": 0.0},
        {"head_scale": -1.0},
    ],
)
def test_options_out_of_range(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad)))):
        OptimConfig(**bad)


def test_a_scaled_schedule_is_that_of_the_scaled_rate():
    params = {"w": ones((3, 2))}
    grads = {"w": np.arange(6, dtype=np.float32).reshape(3, 2)}
    config = OptimConfig(learning_rate=1e-2)
    tx = make_optimiser(config, 10)
    double = make_optimiser(OptimConfig(learning_rate=2e-2), 10)
    scaled, want = scale_learning_rate(tx.init(params), 2.0), double.init(params)
    update, update_double = jax.jit(tx.update), jax.jit(double.update)
    for _ in range(3):
        got_updates, scaled = update(grads, scaled, params)
        want_updates, want = update_double(grads, want, params)
    np.testing.assert_allclose(got_updates["w"], want_updates["w"], rtol=1e-6)
