import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.ops.filterbank import _convolve, filter_bank


def naive(x, kernels):
    (n, t), (k, f) = x.shape, kernels.shape
    out = np.zeros((n, t, f))
    for i in range(t):
        for j in range(k):
            at = i + j - (k - 1) // 2
            if 0 <= at < t:
                out[:, i] += x[:, at, None] * kernels[j]
    return out


@pytest.mark.parametrize(("t", "k"), [(50, 7), (64, 16), (10, 25), (33, 33), (5, 1)])
def test_filter_bank_matches_naive_sums_and_the_convolution(t, k):
    rng = np.random.default_rng(t)
    x, kernels = rng.normal(size=(3, t)), rng.normal(size=(k, 4))
    a, b = jnp.asarray(x, jnp.float32), jnp.asarray(kernels, jnp.float32)
    np.testing.assert_allclose(filter_bank(a, b), naive(x, kernels), atol=1e-4)
    np.testing.assert_allclose(_convolve(a, b), naive(x, kernels), atol=1e-4)

    def loss(form):
        return lambda x, w: jnp.sum(jnp.sin(form(x, w)))

    got = jax.grad(loss(filter_bank), argnums=(0, 1))(a, b)
    want = jax.grad(loss(_convolve), argnums=(0, 1))(a, b)
    for u, v in zip(got, want, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-3)
