import jax
import numpy as np
import pytest

from eegkd.ops.dropout import keep_mask


def test_rate_is_kept_everywhere():
    keep = np.asarray(keep_mask(jax.random.key(0), (200, 100, 50), rate=0.1))
    spread = (0.1 * 0.9 / keep.size) ** 0.5
    assert abs(keep.mean() - 0.9) < 4 * spread
    for axis in range(3):  # a column mean has a spread sqrt(size of the axis) larger
        means = keep.mean(axis=tuple({0, 1, 2} - {axis}))
        z = (means - 0.9) / (spread * keep.shape[axis] ** 0.5)
        assert np.abs(z).max() < 4.5
        assert 0.6 < z.std() < 1.4


def test_elements_and_keys_are_independent():
    keys = [
        jax.random.key(0),
        jax.random.key(1),
        jax.random.fold_in(jax.random.key(0), 1),
    ]
    masks = [np.asarray(keep_mask(k, (512, 512), rate=0.5)) for k in keys]
    signs = [2.0 * mask - 1 for mask in masks]
    limit = 4.5 / 512  # spread of a mean of 512 * 512 signs is 1 / 512
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs((signs[a] * signs[b]).mean()) < limit
    for lag in (1, 2, 3, 4, 8, 16, 64, 256):
        for axis in (0, 1):
            lagged = np.roll(signs[0], lag, axis=axis)
            assert abs((signs[0] * lagged).mean()) < limit


def test_same_key_same_mask_and_other_generators_work():
    a = keep_mask(jax.random.key(3), (4, 5), rate=0.3)
    np.testing.assert_array_equal(a, keep_mask(jax.random.key(3), (4, 5), rate=0.3))
    np.testing.assert_array_equal(a, keep_mask(jax.random.PRNGKey(3), (4, 5), rate=0.3))
    rbg = keep_mask(jax.random.key(3, impl="rbg"), (64, 64), rate=0.3)
    assert 0.6 < float(rbg.mean()) < 0.8


def test_rate_zero_keeps_all_and_bad_rates_are_refused():
    assert keep_mask(jax.random.key(0), (1000,), rate=0).all()
    with pytest.raises(ValueError, match="1.0"):
        keep_mask(jax.random.key(0), (2,), rate=1.0)
