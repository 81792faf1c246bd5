"""Adapters beside linear layers: the low-rank path, its merge, and its targets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from eegkd.errors import InputError
from eegkd.models import (
    LoraConfig,
    apply_adapted,
    apply_params,
    find_linears,
    init_adapters,
    merge_adapters,
    unmerge_adapters,
)

LORA = LoraConfig(rank=2, alpha=3.0, targets=("layers/*", "out"))
X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + jnp.tanh(nn.Dense(5, name="up")(x)), None


class Net(nn.Module):
    """Scanned layers, one that is left alone, and no linear layer but `Dense`."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(nn.Dense(5, name="first")(x))
        scan = nn.scan(
            Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = scan(name="layers")(x, None)
        x = nn.Conv(5, (3,), name="conv")(x[None])[0]
        return nn.Dense(6, name="out")(x)


@jax.jit
def plain(base):
    return apply_params(Net(), base, X)


@jax.jit
def adapted(base, adapters):
    return apply_adapted(Net(), base, adapters, X, alpha=LORA.alpha)


@pytest.fixture(scope="module")
def net():
    """Parameters, and adapters whose B is not zero any more."""
    base = jax.jit(Net().init)(jax.random.key(0), X)["params"]
    linears = find_linears(Net(), X)
    assert sorted(linears) == ["first", "layers/up", "out"]
    draw = jax.jit(lambda key, base: init_adapters(key, base, linears, LORA))
    start = draw(jax.random.key(1), base)
    rng = np.random.default_rng(2)
    moved = jax.tree.map(
        lambda leaf: leaf + rng.normal(size=leaf.shape).astype(leaf.dtype), start
    )
    return base, start, moved


def test_adapters_change_nothing_at_first(net):
    base, start, _ = net
    shapes = jax.tree.map(jnp.shape, start)
    assert shapes == {
        "layers": {"up": {"lora_down": (3, 5, 2), "lora_up": (3, 2, 5)}},
        "out": {"lora_down": (5, 2), "lora_up": (2, 6)},
    }
    assert np.abs(start["out"]["lora_down"]).max() > 0
    ups = start["layers"]["up"]["lora_up"], start["out"]["lora_up"]
    assert not any(np.any(up) for up in ups)
    # What they add is zero; the two programs may round differently.
    want = plain(base)
    np.testing.assert_allclose(adapted(base, start), want, rtol=1e-5, atol=1e-6)


def test_merged_parameters_give_the_same_and_come_apart_again(net):
    base, _, moved = net
    merged = merge_adapters(base, moved, alpha=LORA.alpha)
    down, up = (np.float64(moved["layers"]["up"][f"lora_{k}"]) for k in ("down", "up"))
    for i in range(3):
        kernel = np.float64(base["layers"]["up"]["kernel"][i])
        want = kernel + 3 / 2 * down[i] @ up[i]
        # A sum that cancels is as exact as its terms are.
        terms = np.abs(kernel) + 3 / 2 * np.abs(down[i]) @ np.abs(up[i])
        error = np.abs(merged["layers"]["up"]["kernel"][i] - want)
        assert (error <= 1e-6 * terms).all()
    assert merged["first"] is base["first"]
    want = plain(merged)
    np.testing.assert_allclose(adapted(base, moved), want, rtol=1e-4, atol=1e-5)
    assert np.abs(want - plain(base)).max() > 0.1
    take_out = jax.jit(functools.partial(unmerge_adapters, alpha=LORA.alpha))
    apart = take_out(merged, moved)
    for x, y in zip(jax.tree.leaves(apart), jax.tree.leaves(base), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_every_adapter_learns(net):
    base, start, moved = net

    gradient = jax.jit(
        jax.grad(lambda adapters: jnp.mean(adapted(base, adapters) ** 2))
    )
    grads = gradient(moved)
    assert all(np.abs(g).min(axis=(-2, -1)).max() > 0 for g in jax.tree.leaves(grads))
    # B starts at zero, so that A has no gradient in the first update.
    first = gradient(start)["out"]
    assert np.abs(first["lora_down"]).max() == 0
    assert np.abs(first["lora_up"]).max() > 0


class Readers(nn.Module):
    """Layers that all read the same."""

    @nn.compact
    def __call__(self, x):
        body = lambda layer, x, _: (x, layer(x))
        scan = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=3,
        )
        _, y = scan(nn.Dense(x.shape[-1], name="layers"), x, None)
        return y


def test_dropout_is_on_what_adapters_read():
    x = 1 + np.random.default_rng(0).random((64, 50)).astype(np.float32)
    base = jax.jit(Readers().init)(jax.random.key(0), x)["params"]
    # A and B that change nothing show what they were given.
    same = np.broadcast_to(np.eye(50, dtype=np.float32), (3, 50, 50))
    adapters = {"layers": {"lora_down": same, "lora_up": same}}

    @jax.jit
    def of_key(key):
        noise = {"dropout": 0.25, "rngs": {"dropout": key}}
        y = apply_adapted(Readers(), base, adapters, x, alpha=50.0, **noise)
        return y - apply_params(Readers(), base, x)

    read = lambda seed: np.asarray(of_key(jax.random.key(seed)))
    got = read(0)
    kept = np.abs(got) > 0.5
    np.testing.assert_allclose(got, np.where(kept, x / 0.75, 0), atol=1e-5)
    np.testing.assert_allclose(kept.mean(axis=(1, 2)), 0.75, atol=0.04)
    assert (kept[0] != kept[1]).any()  # Each layer draws for itself.
    np.testing.assert_array_equal(read(0), got)
    assert ((np.abs(read(1)) > 0.5) != kept).any()
    with pytest.raises(ValueError, match=r"dropout=0\.25 needs rngs"):
        apply_adapted(Readers(), base, adapters, x, alpha=1.0, dropout=0.25)


def test_a_target_that_is_nothing_is_named(net):
    base, _, _ = net
    linears = find_linears(Net(), X)
    for target in ("layers/down", "conv"):
        config = LoraConfig(targets=(target,))
        with pytest.raises(InputError, match=f"{target}: no linear.* first, layers/up"):
            init_adapters(jax.random.key(0), base, linears, config)
    with pytest.raises(ValueError, match=r"lora\.rank is at least 1"):
        LoraConfig(rank=0)
    with pytest.raises(ValueError, match=r"lora\.dropout is in \[0, 1\); got 1"):
        LoraConfig(dropout=1.0)
