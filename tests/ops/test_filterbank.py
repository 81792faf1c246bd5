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
    a, b = x.astype(np.float32), kernels.astype(np.float32)

    def both(form):
        loss = lambda x, w: jnp.sum(jnp.sin(form(x, w)))
        return jax.jit(lambda x, w: (form(x, w), jax.grad(loss, (0, 1))(x, w)))

    (value, got), (other, want) = both(filter_bank)(a, b), both(_convolve)(a, b)
    np.testing.assert_allclose(value, naive(x, kernels), atol=1e-4)
    np.testing.assert_allclose(other, naive(x, kernels), atol=1e-4)
    for u, v in zip(got, want, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-3)
