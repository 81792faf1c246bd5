import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.evaluate.baselines import band_power, linear_baseline

RATE = 100.0


def tone(freq, seconds=4.0, amplitude=1.0):
    time = np.arange(int(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * freq * time)).astype(np.float32)


@pytest.mark.parametrize(("freq", "band"), [(2, 0), (6, 1), (10, 2), (20, 3), (36, 4)])
def test_a_tone_has_its_power_in_its_band(freq, band):
    noise = 1e-3 * np.random.default_rng(0).normal(size=(1, 2, 400))
    signal = noise.astype(np.float32)
    signal[0, 1] += tone(freq)
    features = band_power(signal, RATE).reshape(2, 5)
    assert features[1].argmax() == band
    assert np.exp(features[1, band]) > 0.9


def test_relative_power_ignores_gain_and_absolute_does_not():
    signal = np.random.default_rng(1).normal(size=(3, 2, 400))
    np.testing.assert_allclose(
        band_power(7 * signal, RATE), band_power(signal, RATE), atol=1e-5
    )
    np.testing.assert_allclose(
        band_power(7 * signal, RATE, relative=False),
        band_power(signal, RATE, relative=False) + np.log(49),
        atol=1e-5,
    )


def test_power_matches_a_mean_of_the_density():
    signal = np.random.default_rng(2).normal(size=(1, 1, 200))
    window = np.hanning(201)[:-1]
    spectrum = np.abs(np.fft.rfft((signal[0, 0] - signal.mean()) * window)) ** 2
    density = 2 * spectrum / (RATE * (window**2).sum())
    freqs = np.fft.rfftfreq(200, 1 / RATE)
    want = np.log(density[(freqs >= 8) & (freqs < 13)].mean())
    assert band_power(signal, RATE, relative=False)[0, 2] == pytest.approx(want, 1e-5)


def test_bands_are_clipped_to_what_the_filter_left():
    signal = np.random.default_rng(3).normal(size=(2, 3, 400))
    assert band_power(signal, RATE, passband=(0.5, 29.0)).shape == (2, 3 * 4)
    assert band_power(signal, 40.0).shape == (2, 3 * 4)
    assert band_power(signal[..., :30], RATE).shape[1] % 3 == 0
    flat = band_power(np.zeros((1, 1, 400)), RATE)
    assert np.isfinite(flat).all()
    with pytest.raises(ValueError, match="No band"):
        band_power(signal, RATE, passband=(60.0, 70.0))


def test_an_edge_of_zero_is_none():
    signal = np.random.default_rng(4).normal(size=(2, 3, 400))
    for band, same in (
        ((0.0, 0.0), None),
        ((0.5, 0.0), (0.5, RATE / 2)),
        ((0.0, 29.0), (1e-9, 29.0)),
        ((9.0, 0.0), (9.0, RATE / 2)),
    ):
        want = band_power(signal, RATE, passband=same)
        np.testing.assert_array_equal(band_power(signal, RATE, passband=band), want)


def test_a_pass_band_above_all_bands_is_one():
    signal = np.random.default_rng(5).normal(size=(2, 3, 400))
    found = band_power(signal, 400.0, passband=(90.0, 150.0), relative=False)
    want = band_power(signal, 400.0, bands=((90.0, 150.1),), relative=False)
    assert found.shape == (2, 3)
    np.testing.assert_array_equal(found, want)


def gaussian(n, seed, shift=2.0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return rng.normal(size=(n, 6)) + shift * label[:, None] * np.eye(6)[0], label


def test_linear_baseline_learns_and_keeps_columns():
    (x, y), (vx, vy), (tx, ty) = (gaussian(300, s) for s in range(3))
    prob = linear_baseline(x, y, vx, vy, num_classes=3)(tx)
    assert prob.shape == (300, 3)
    np.testing.assert_allclose(prob.sum(1), 1, atol=1e-5)
    assert (prob[:, 2] == 0).all()
    assert 0.78 < np.mean(prob.argmax(1) == ty) < 0.9  # the best possible is 0.841
    y2 = np.where(np.arange(300) < 20, -1, y)
    x2 = np.where(y2[:, None] < 0, 1e6, x)
    assert (
        np.mean(linear_baseline(x2, y2, vx, vy, num_classes=2)(tx).argmax(1) == ty)
        > 0.78
    )


def test_classes_weigh_equally():
    x, y = gaussian(2000, 0, shift=1.0)
    keep = (y == 0) | (np.arange(2000) % 10 == 0)
    vx, vy = gaussian(200, 1, shift=1.0)
    decided = linear_baseline(x[keep], y[keep], vx, vy, num_classes=2)(vx).argmax(1)
    assert abs(decided.mean() - vy.mean()) < 0.15


def test_validation_chooses_the_strength():
    rng = np.random.default_rng(4)
    x, vx, tx = rng.normal(size=(3, 60, 40))  # pure noise: shrink
    y, vy = rng.integers(0, 2, (2, 60))
    prob = linear_baseline(x, y, vx, vy, num_classes=2)(tx)
    weak = linear_baseline(x, y, vx, vy, num_classes=2, strengths=(10.0,))(tx)
    assert np.abs(prob - 0.5).max() < 0.2 < 0.4 < np.abs(weak - 0.5).max()


def test_one_class_is_refused():
    x, y = gaussian(20, 0)
    with pytest.raises(InputError, match="single class"):
        linear_baseline(x, np.zeros_like(y), x, y, num_classes=2)
    validation = np.zeros_like(y) - 1  # unlabelled validation still gives a model
    assert linear_baseline(x, y, x, validation, num_classes=2)(x).shape == (20, 2)


def test_each_of_several_labels_has_a_classifier_of_its_own():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (300, 4))
    x = rng.normal(size=(300, 4)) + 2.0 * label
    label[:100, 1] = -1
    label[:, 2], label[:, 3] = 1, -1
    half = slice(None, None, 2)
    prob = linear_baseline(x[half], label[half], x[1::2], label[1::2], num_classes=4)(x)
    assert prob.shape == (300, 4)
    for k in range(2):
        known = label[:, k] >= 0
        own = linear_baseline(
            x[half], label[half, k], x[1::2], label[1::2, k], num_classes=2
        )
        np.testing.assert_array_equal(prob[:, k], own(x)[:, 1])
        assert np.mean((prob[known, k] >= 0.5) == label[known, k]) > 0.8
    np.testing.assert_array_equal(prob[:, 2:], np.full((300, 2), (1.0, 0.5)))
