import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from eegkd.models.stack import block_numbers, scan_layers

DEPTH = 4
X = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
SHIFT = np.arange(DEPTH, dtype=np.float32)
GAIN = np.float32(0.5)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, shift, gain):
        y = nn.Dense(x.shape[-1], name="dense")(x)
        return x + gain * jnp.tanh(y) + (0 if shift is None else shift), x.sum()


class Stack(nn.Module):
    layers_out: tuple[int, ...] = ()
    remat: str = "none"
    shifted: bool = True

    @nn.compact
    def __call__(self, x):
        layer = Layer(name="layers")
        return scan_layers(
            layer,
            x,
            GAIN,
            depth=DEPTH,
            scanned=SHIFT if self.shifted else None,
            layers_out=self.layers_out,
            remat=self.remat,
        )


@pytest.fixture(scope="module")
def variables():
    return jax.jit(Stack().init)(jax.random.key(0), X)


def plain(variables, shift=1):
    p = variables["params"]["layers"]["dense"]
    x, blocks, sums = np.float64(X), [], []
    for i in range(DEPTH):
        sums.append(x.sum())
        x = (
            x
            + GAIN * np.tanh(x @ np.float64(p["kernel"][i]) + p["bias"][i])
            + shift * i
        )
        blocks.append(x)
    return x, blocks, sums


def test_layers_asked_for_are_the_plain_loops(variables):
    want, blocks, sums = plain(variables)
    x, kept, ys = jax.jit(Stack((-1, 1, -3)).apply)(variables, X)
    assert list(kept) == ["block_1", "block_3"]
    np.testing.assert_allclose(x, want, rtol=1e-5)
    np.testing.assert_allclose(ys, sums, rtol=1e-5)
    for i in (1, 3):
        np.testing.assert_allclose(kept[f"block_{i}"], blocks[i], rtol=1e-5)


@pytest.mark.optimised
def test_few_layers_stand_in_a_row_and_those_with_a_cache_in_a_loop(variables):
    row = jax.jit(Stack((-1, 1), shifted=False).apply)
    want, blocks, _ = plain(variables, shift=0)
    x, kept, _ = row(variables, X)
    np.testing.assert_allclose(x, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept["block_1"], blocks[1], rtol=1e-5, atol=1e-6)
    loop = jax.jit(Stack((-1, 1)).apply)
    texts = [run.lower(variables, X).compile().as_text() for run in (row, loop)]
    assert [" while(" in text for text in texts] == [False, True]


def test_every_layer_has_its_own_weights(variables):
    kernel = variables["params"]["layers"]["dense"]["kernel"]
    assert kernel.shape == (DEPTH, 5, 5)
    assert len({float(leaf[0, 0]) for leaf in kernel}) == DEPTH


def test_rematerialisation_changes_memory_and_no_gradient(variables):
    def loss(variables, remat):
        x, kept, _ = Stack((1,), remat).apply(variables, X)
        return (x**2).sum() + (kept["block_1"] ** 3).sum()

    value = jax.jit(jax.grad(loss), static_argnums=1)
    want = value(variables, "none")
    for remat in ("full", "dots"):
        jaxpr = str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(variables, remat))
        assert "checkpoint" in jaxpr or "remat" in jaxpr
        for a, b in zip(
            *map(jax.tree.leaves, (value(variables, remat), want)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_unknown_layers_and_policies_are_refused(variables):
    assert block_numbers((-2, 0, 22), 24) == (0, 22)
    with pytest.raises(ValueError, match=r"24 layers; got \[24, -25\]"):
        block_numbers((24, 1, -25), 24)
    with pytest.raises(ValueError, match="remat is one of"):
        Stack(remat="some").apply(variables, X)
