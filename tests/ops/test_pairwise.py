import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from eegkd.ops.pairwise import (
    masked_mean,
    pairwise_cosine_distance,
    pairwise_sqeuclidean,
    unit_vectors,
)

WIDTHS = pytest.mark.parametrize("width", [3, 40])
BOTH = pytest.mark.parametrize("fn", [pairwise_sqeuclidean, pairwise_cosine_distance])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def naive(fn, x, y):
    """Distances of all pairs in float64, from differences."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if fn is pairwise_cosine_distance:
        x, y = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
        return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1) / 2
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)


@BOTH
@given(
    shape=st.sampled_from([(1, 1, 1), (5, 4, 8), (1, 4, 33), (5, 1, 33)]),
    power=st.integers(-6, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_matches_numpy_at_any_scale(fn, shape, power, seed):
    *sizes, width = shape
    x, y = (10.0**power * draw(2, k, width, seed=seed + k) for k in sizes)
    x, y = x.astype(np.float32), y.astype(np.float32)
    scale = np.square(np.abs(x).max() + np.abs(y).max()) * width
    scale = 1 if fn is pairwise_cosine_distance else scale
    np.testing.assert_allclose(jax.jit(fn)(x, y), naive(fn, x, y), atol=1e-6 * scale)


@WIDTHS
def test_nearly_matched_tokens_far_from_the_origin(width):
    x = (1000 + draw(5, width)).astype(np.float32)
    y = (x + 0.01 * draw(5, width, seed=1)).astype(np.float32)
    want = naive(pairwise_sqeuclidean, x, y)
    # Without the shift, products of 1e6 would err by about 0.1.
    got = jax.jit(pairwise_sqeuclidean)(x, y)
    np.testing.assert_allclose(got, want, atol=2e-5, rtol=1e-5)


@WIDTHS
def test_gradients_in_float64(width):
    with jax.enable_x64(True):
        x, y = draw(2, 4, width), draw(2, 3, width, seed=1)
        for fn in map(jax.jit, (pairwise_sqeuclidean, pairwise_cosine_distance)):
            assert fn(x, y).dtype == jnp.float64
            check_grads(fn, (x, y), order=1, modes=["rev"])


@pytest.mark.slow
@WIDTHS
def test_equal_tokens_have_distance_zero_and_a_gradient_of_zero(width):
    x = jnp.asarray(draw(6, width), jnp.float32)
    for fn in (pairwise_sqeuclidean, pairwise_cosine_distance):
        own = lambda x, fn=fn: jnp.sum(jnp.diagonal(fn(x, jax.lax.stop_gradient(x))))
        value, grad = jax.value_and_grad(own)(x)
        np.testing.assert_allclose(value, 0, atol=2e-5)
        np.testing.assert_allclose(grad, 0, atol=1e-5)
        assert jnp.all(fn(x, x) >= 0)


def test_products_are_exact_where_the_default_is_not():
    for fn in (pairwise_sqeuclidean, pairwise_cosine_distance):
        grad = jax.grad(lambda x, y, fn=fn: fn(x, y).sum(), (0, 1))
        lowered = jax.jit(grad).lower(jnp.ones((4, 9)), jnp.ones((3, 9))).as_text()
        dots = [line for line in lowered.splitlines() if "dot_general" in line]
        assert dots
        assert all("HIGHEST" in line for line in dots)


@BOTH
def test_number_types_and_one_batch_axis_more(fn):
    x, y = (draw(2, n, 9, seed=s).astype(np.float32) for n, s in ((4, 0), (3, 1)))
    run, mapped = jax.jit(fn), jax.jit(jax.vmap(fn))
    half = run(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    rounded = (z.astype(jnp.bfloat16).astype(np.float32) for z in (x, y))
    np.testing.assert_array_equal(half, run(*rounded))
    np.testing.assert_allclose(mapped(x, y), run(x, y), rtol=1e-5, atol=1e-6)


@jax.jit
def of_units(x):
    return unit_vectors(x), jax.grad(lambda x: unit_vectors(x)[:, 0].sum())(x)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_unit_vectors_at_extreme_scales(scale):
    x = (scale * draw(4, 5)).astype(np.float32)
    want = 0 if scale == 0 else 1
    found, grad = of_units(x)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), want, rtol=1e-6)
    assert np.all(np.isfinite(grad))


def test_a_zero_vector_is_at_distance_one():
    y, zero = draw(3, 5).astype(np.float32), np.zeros((1, 5), np.float32)
    fn = jax.jit(lambda x: pairwise_cosine_distance(x, y))
    np.testing.assert_array_equal(fn(zero), 1)
    gradient = jax.jit(jax.grad(lambda x: fn(x).sum()))
    np.testing.assert_array_equal(gradient(zero), 0)


def test_masked_mean_ignores_what_is_masked():
    x = np.array([[[1.0], [3.0], [np.nan]], [[np.inf], [5.0], [7.0]]])
    mask = np.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(masked_mean(x, mask), [[2], [0]])
    np.testing.assert_array_equal(masked_mean(x[:1, :2], None), [[2]])


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\): project"):
        pairwise_sqeuclidean(jnp.ones((2, 3)), jnp.ones((2, 4)))


@pytest.mark.parametrize("fn", [pairwise_sqeuclidean, pairwise_cosine_distance])
def test_one_example_is_not_compared_with_all(fn):
    with pytest.raises(ValueError, match=r"\(4, 2, 3\) and \(1, 5, 3\): repeat"):
        fn(jnp.ones((4, 2, 3)), jnp.ones((1, 5, 3)))
