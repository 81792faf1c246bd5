import jax
import numpy as np
import pytest

from eegkd.models.grid import _banded, _convolve, depthwise_conv2d
from tests.oracles.foundation import grid_conv


@pytest.mark.parametrize(
    ("c", "n", "i", "j"), [(1, 1, 7, 3), (2, 4, 5, 7), (6, 3, 3, 1)]
)
def test_both_forms_equal_the_sum(c, n, i, j):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, c, n, 3)).astype(np.float32)
    kernel = rng.normal(size=(i, j, 3)).astype(np.float32)
    want = np.stack([grid_conv(np.float64(row), np.float64(kernel)) for row in x])
    for form in (_banded, _convolve):
        np.testing.assert_allclose(form(x, kernel), want, rtol=1e-4, atol=1e-4)


def test_gradients_of_both_forms_agree():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 1, 4, 3, 2)).astype(np.float32)
    kernel = rng.normal(size=(5, 3, 2)).astype(np.float32)
    pulls = [jax.vjp(form, x, kernel)[1](g) for form in (depthwise_conv2d, _convolve)]
    for got, want in zip(*pulls, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 3), (3, 4, 3)])
def test_wrong_kernels_are_refused(shape):
    with pytest.raises(ValueError, match="odd kernel sizes"):
        depthwise_conv2d(
            np.zeros((1, 2, 2, 3), np.float32), np.zeros(shape, np.float32)
        )
