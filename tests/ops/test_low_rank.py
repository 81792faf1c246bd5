"""The product with two narrow matrices: value and gradients by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.ops.low_rank import low_rank_product

RNG = np.random.default_rng(0)
DOWN, UP = RNG.normal(size=(5, 2)), RNG.normal(size=(2, 4))


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5)])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_value_and_gradients_are_those_of_numpy(shape, wrap):
    x = RNG.normal(size=shape)
    given = [jnp.asarray(a, jnp.float32) for a in (x, DOWN, UP)]
    want = x @ DOWN @ UP
    g = np.cos(want)
    out, pull = jax.vjp(wrap(low_rank_product), *given)
    found = (out, *wrap(pull)(jnp.float32(g)))
    rows, g_rows = x.reshape(-1, 5), g.reshape(-1, 4)
    oracle = (
        want,
        g @ UP.T @ DOWN.T,
        rows.T @ (g_rows @ UP.T),
        (rows @ DOWN).T @ g_rows,
    )
    for one, other in zip(found, oracle, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_many_adapters_side_by_side_are_each_of_them():
    x = jnp.float32(RNG.normal(size=(3, 7, 5)))
    downs, ups = (jnp.stack([m, 2 * m, -m]).astype(jnp.float32) for m in (DOWN, UP))
    slope = jax.grad(lambda *args: jnp.sin(low_rank_product(*args)).sum(), (0, 1, 2))
    together = jax.vmap(slope)(x, downs, ups)
    for i in range(3):
        for one, all_ in zip(slope(x[i], downs[i], ups[i]), together, strict=True):
            np.testing.assert_allclose(one, all_[i], rtol=1e-5, atol=1e-5)


def test_no_wide_matrix_is_transposed():
    x = jnp.ones((64, 48))

    def loss(x, down, up):
        return jnp.sin(low_rank_product(jnp.tanh(x), down, up)).sum()

    step = jax.jit(jax.grad(loss, (1, 2)))
    text = step.lower(x, jnp.ones((48, 3)), jnp.ones((3, 80))).as_text()
    turned = [line for line in text.splitlines() if "stablehlo.transpose" in line]
    assert turned
    assert not [line for line in turned if "64x48" in line or "64x80" in line]
