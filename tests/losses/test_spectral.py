import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.losses import spectral_magnitude, spectral_phase, spectral_view

magnitude, phase = jax.jit(spectral_magnitude), jax.jit(spectral_phase)
BOTH = pytest.mark.parametrize("fn", [spectral_magnitude, spectral_phase])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_magnitude_does_not_see_a_circular_shift_and_phase_does():
    wave = draw(3, 4, 16)
    late = np.roll(wave, 5, axis=-1)
    np.testing.assert_allclose(magnitude(wave, late), 0, atol=1e-5)
    assert np.all(phase(wave, late) > 0.1)


def test_phase_does_not_see_a_positive_scale_and_knows_a_negation():
    wave = draw(3, 4, 16)
    np.testing.assert_allclose(phase(wave, 9 * wave), 0, atol=1e-4)
    np.testing.assert_allclose(phase(wave, -wave), 2, atol=1e-4)
    assert np.all(magnitude(wave, 9 * wave) > 0.1)
    np.testing.assert_allclose(magnitude(wave, -wave), 0, atol=1e-6)


def test_phase_does_not_jump_where_an_angle_wraps():
    """A tone whose phase crosses pi, where atan2 goes from pi to -pi."""
    turn = np.linspace(np.pi - 0.02, np.pi + 0.02, 41, dtype=np.float32)
    time = np.arange(32, dtype=np.float32)
    tones = np.cos(2 * np.pi * 4 * time / 32 + turn[:, None])
    teacher = np.repeat(tones[:1], 41, axis=0)
    values = np.asarray(phase(tones, teacher))
    # Bins without a tone hold nothing but rounding; their weight is next to none.
    np.testing.assert_allclose(values, 1 - np.cos(turn - turn[0]), atol=2e-2)
    assert np.max(np.abs(np.diff(values))) < 1e-3


@BOTH
@pytest.mark.parametrize("size", [1, 2, 7, 12])
def test_the_product_form_equals_the_fft(fn, size):
    student, teacher = draw(2, 3, 2, size)

    @jax.jit
    def both(student):
        run = lambda method: jax.value_and_grad(
            lambda s: fn(s, teacher, method=method).sum()
        )(student)
        return run("fft"), run("dft")

    (want, wanted), (got, grad) = both(student)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grad, wanted, rtol=1e-3, atol=1e-5)


@BOTH
def test_any_axis_but_the_batch(fn):
    student, teacher = draw(2, 2, 3, 5, 4)
    run = jax.jit(fn, static_argnames="axis")
    want = run(np.moveaxis(student, 2, -1), np.moveaxis(teacher, 2, -1))
    for axis in (2, -2):
        np.testing.assert_allclose(run(student, teacher, axis=axis), want, rtol=1e-5)
    for axis in (0, -4, 4):
        with pytest.raises(ValueError, match=f"got {axis}"):
            fn(student, teacher, axis=axis)


@BOTH
def test_masked_rows_are_not_there(fn):
    student, teacher = draw(2, 2, 4, 8)
    keep = np.array([True, False, True, True])
    mask = np.stack([keep, keep])
    run = jax.jit(fn)
    want = run(student[:, keep], teacher[:, keep])
    student[:, ~keep] = np.nan
    total = jax.value_and_grad(lambda s, m: fn(s, teacher, m).sum())
    value, grad = jax.jit(total)(student, mask)
    np.testing.assert_allclose(value, want.sum(), rtol=1e-6)
    np.testing.assert_array_equal(grad[:, ~keep], 0)
    np.testing.assert_array_equal(run(student, teacher, 0 * mask > 0), 0)


@BOTH
def test_bad_arguments(fn):
    wave = draw(2, 4)
    with pytest.raises(ValueError, match="'sine'"):
        fn.__wrapped__(wave, wave, method="sine")
    with pytest.raises(ValueError, match="differ in shape"):
        fn.__wrapped__(wave, wave[:, :2])


def test_views_put_the_axis_last():
    """The number at channel c, patch p, feature f is 100 c + 10 p + f."""
    c, p, f = np.meshgrid(range(2), range(3), range(4), indexing="ij")
    tokens = (100 * c + 10 * p + f).reshape(1, 6, 4).astype(np.float32)
    view = lambda name: np.asarray(spectral_view(tokens, grid=(2, 3), view=name))[0]
    np.testing.assert_array_equal(view("patch")[5], [101, 111, 121])
    np.testing.assert_array_equal(view("channel_series")[1, 3:6], [103, 110, 111])
    np.testing.assert_array_equal(view("feature")[4], [110, 111, 112, 113])
    np.testing.assert_array_equal(view(None), view("channel_series"))
    long = jnp.zeros((1, 16, 4))
    assert spectral_view(long, grid=(2, 8)).shape == (1, 8, 8)
    with pytest.raises(ValueError, match="no grid of 4"):
        spectral_view(tokens, grid=(4, 2))
