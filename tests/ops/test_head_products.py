"""Products of attention: values and gradients by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.ops.head_products import head_average, head_scores

CASES = {
    "scores": (head_scores, "bhie,bhje->bhij", "bhij,bhje->bhie", "bhij,bhie->bhje"),
    "average": (head_average, "bhij,bhje->bhie", "bhie,bhje->bhij", "bhij,bhie->bhje"),
}


def operands(name, i, j, e):
    rng = np.random.default_rng(i + 10 * j + 100 * e)
    left = (2, 3, i, e) if name == "scores" else (2, 3, i, j)
    return rng.normal(size=left), rng.normal(size=(2, 3, j, e))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4))
def test_value_and_gradients_are_those_of_numpy(name, i, j, e):
    product, forward, of_left, of_right = CASES[name]
    left, right = operands(name, i, j, e)
    want = np.einsum(forward, left, right)
    g = np.cos(want)
    out, pull = jax.vjp(product, jnp.float32(left), jnp.float32(right))
    found = (out, *pull(jnp.float32(g)))
    # The right operand's gradient contracts what the left one or g has of scores.
    first = (g, left) if name == "scores" else (left, g)
    oracle = (want, np.einsum(of_left, g, right), np.einsum(of_right, *first))
    for one, other in zip(found, oracle, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_it_is_compiled_for_every_platform(name):
    product = CASES[name][0]
    left, right = (jnp.float32(x) for x in operands(name, 4, 5, 3))
    step = jax.jit(jax.grad(lambda a, b: product(a, b).sum(), argnums=(0, 1)))
    traced = step.trace(left, right)
    for platform in ("tpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "optimization_barrier" not in text
