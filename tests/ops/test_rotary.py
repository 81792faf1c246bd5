import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.ops.rotary import rotary_angles, rotate, token_positions


def oracle(x, positions, theta):
    """Each pair as a complex number, turned."""
    half = x.shape[-1] // 2
    z = np.asarray(x[..., :half], np.float64) + 1j * x[..., half:]
    rates = np.array([theta ** (-2 * i / x.shape[-1]) for i in range(half)])
    z = z * np.exp(1j * positions[:, :, None, None] * rates)
    return np.concatenate([z.real, z.imag], axis=-1)


def test_pairs_are_turned_by_their_angles():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
    positions = rng.integers(0, 40, (2, 5))
    got = rotate(x, *rotary_angles(positions, dim=8, theta=100.0))
    np.testing.assert_allclose(got, oracle(x, positions, 100.0), atol=2e-5)
    assert got.dtype == np.float32
    half = jnp.asarray(x, jnp.bfloat16)
    turned = rotate(half, *rotary_angles(positions, dim=8, theta=100.0))
    assert turned.dtype == jnp.bfloat16
    want = oracle(np.asarray(half, np.float32), positions, 100.0)
    np.testing.assert_allclose(np.float64(turned), want, atol=0.02)


def test_products_know_the_distance_alone():
    q, k = np.random.default_rng(1).normal(size=(2, 1, 6, 1, 4)).astype(np.float32)
    scores = []
    for start in (0, 17):
        angles = rotary_angles(start + np.arange(6)[None], dim=4, theta=1e4)
        scores.append(
            jnp.einsum("bnhe,bmhe->nm", rotate(q, *angles), rotate(k, *angles))
        )
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_positions_count_real_tokens_on_either_side():
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]], bool)
    want = [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 1, 1, 2]]
    np.testing.assert_array_equal(token_positions(mask), want)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="even width; got 5"):
        rotary_angles(np.zeros((1, 1), int), dim=5, theta=1e4)
