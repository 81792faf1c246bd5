"""Power in bands: sines, Parseval, and bands that are not there."""

import functools

import jax
import numpy as np
import pytest

from eegkd.ops.bands import BANDS, power_in_band


def test_a_sine_lies_in_its_band_alone():
    t = np.arange(200) / 100.0
    wave = np.stack([3 * np.sin(2 * np.pi * f * t) for f in (2.0, 10.0, 20.0)])

    @jax.jit
    def every(wave):
        power = functools.partial(power_in_band, wave, rate=100.0)
        return {name: power(band=band) for name, band in BANDS.items()}

    found = every(wave)
    # Of each sine, the positive frequencies have half of the energy.
    energy = 0.5 * 9 / 2 * 200
    for i, name in enumerate(("delta", "alpha", "beta")):
        want = energy * (np.arange(3) == i)
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-2)


def test_bands_side_by_side_add_up_to_the_whole():
    x = np.random.default_rng(0).normal(size=(2, 3, 64))
    edges = (0.0, 5.0, 9.0, 16.0, 33.0)

    @jax.jit
    def whole(x):
        bands = zip(edges[:-1], edges[1:], strict=True)
        return sum(power_in_band(x, rate=64.0, band=band) for band in bands)

    want = (np.abs(np.fft.rfft(x, norm="ortho")) ** 2).sum(-1)
    np.testing.assert_allclose(whole(x), want, rtol=1e-5)


def test_an_empty_band_is_refused():
    with pytest.raises(ValueError, match="No frequency of 8 samples at 8.0 Hz in 30"):
        power_in_band(np.zeros(8), rate=8.0, band=BANDS["gamma"])
