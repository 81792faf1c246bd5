from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as dsp

from eegkd.data.recordings.filtering import (
    filter_and_resample,
    look_ahead_s,
    num_resampled,
)

RATIOS = {
    (500.0, 200.0): Fraction(2, 5),
    (160.0, 200.0): Fraction(5, 4),
    (256.0, 256.0): Fraction(1),
    (173.61, 200.0): Fraction(20000, 17361),
}


def drifting_noise(num, rate, seed=0):
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.normal(size=num)) / rate
    return rng.normal(size=num) * 10 + slow * 20 + 500


@pytest.mark.parametrize(("rates", "ratio"), RATIOS.items())
@pytest.mark.parametrize("notches", [(), (50.0,)])
@pytest.mark.parametrize("band", [(1.0, 40.0), (0.0, 40.0)])
def test_away_from_the_ends_it_equals_recursive_filters(rates, ratio, notches, band):
    rate, new = rates
    x = drifting_noise(round(30 * rate), rate)
    kind, edges = ("bandpass", band) if band[0] else ("lowpass", band[1])
    want = dsp.sosfiltfilt(
        dsp.butter(4, edges, kind, fs=rate, output="sos"), x, padlen=round(3 * rate)
    )
    for line in notches:
        want = dsp.filtfilt(*dsp.iirnotch(line, 30, fs=rate), want)
    want = dsp.resample_poly(
        want,
        ratio.numerator,
        ratio.denominator,
        padtype="line",
        window=("kaiser", 8.0),
    )
    got = filter_and_resample(x, rate, ratio, band=band, notches=notches)
    assert abs(len(got) - len(want)) <= 1
    inner = slice(round(5 * new), round(25 * new))
    np.testing.assert_allclose(got[inner], want[inner], atol=0.02 * want[inner].std())


def test_an_upper_edge_of_0_makes_it_a_high_pass():
    x = drifting_noise(6000, 200.0)
    sections = dsp.butter(4, 1.0, "highpass", fs=200.0, output="sos")
    want = dsp.sosfiltfilt(sections, x, padlen=600)
    got = filter_and_resample(x, 200.0, Fraction(1), band=(1.0, 0.0))
    inner = slice(1000, 5000)
    np.testing.assert_allclose(got[inner], want[inner], atol=0.02 * want.std())
    none = filter_and_resample(x, 200.0, Fraction(1), band=(0.0, 0.0))
    np.testing.assert_array_equal(none, x)


@pytest.mark.parametrize(
    ("band", "order", "kind", "edges"),
    [
        ((0.5, 40.0), 4, "bandpass", (0.5, 40.0)),
        ((2.0, 0.0), 2, "highpass", 2.0),
        ((0.0, 3.0), 4, "lowpass", 3.0),
    ],
)
def test_how_long_before_it_a_step_shows(band, order, kind, edges):
    sections = dsp.butter(order, edges, kind, fs=100.0, output="sos")
    seen = dsp.sosfiltfilt(sections, np.repeat([0.0, 1.0], 6000))[:6000]
    want = (6000 - np.argmax(np.abs(seen) > 0.01)) / 100
    assert look_ahead_s(band, order, 100.0) == pytest.approx(want, abs=0.011)
    assert look_ahead_s((0.5, 40.0), 4, 200.0) == pytest.approx(2.42, abs=0.01)
    assert look_ahead_s((0.0, 0.0), 4, 100.0) == look_ahead_s(None, 4, 100.0) == 0


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(2, 700),
    up=st.integers(1, 9),
    down=st.integers(1, 9),
    offset=st.floats(-1e5, 1e5),
    drift=st.floats(-10, 10),
)
def test_a_line_passes_unchanged_and_lengths_are_rounded(num, up, down, offset, drift):
    x = offset + drift * np.arange(num)
    ratio = Fraction(up, down)
    y = filter_and_resample(x, 100.0, ratio)
    assert len(y) == num_resampled(num, ratio) == int(np.floor(num * up / down + 0.5))
    want = offset + drift * np.arange(len(y)) * down / up
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("hertz", [0.5, 2.0, 10.0, 40.0, 60.0])
def test_a_sine_keeps_its_phase_and_gets_the_squared_gain(hertz):
    rate = 250.0
    x = np.sin(2 * np.pi * hertz * np.arange(15000) / rate)
    y = filter_and_resample(x, rate, Fraction(4, 5), band=(0.5, 40.0))
    sections = dsp.butter(4, [0.5, 40.0], "bandpass", fs=rate, output="sos")
    _, response = dsp.sosfreqz(sections, [hertz], fs=rate)
    want = np.sin(2 * np.pi * hertz * np.arange(12000) / 200.0) * abs(response[0]) ** 2
    np.testing.assert_allclose(y[3000:9000], want[3000:9000], atol=2e-3)


def test_what_lies_above_the_new_nyquist_frequency_is_gone():
    x = np.sin(2 * np.pi * 180 * np.arange(10000) / 500)
    y = filter_and_resample(x, 500.0, Fraction(2, 5))
    assert np.abs(y[400:-400]).max() < 1e-3
    assert np.abs(filter_and_resample(x, 500.0, Fraction(1)) - x).max() < 1e-9


def test_an_offset_and_a_drift_do_not_ring_at_the_ends():
    x = drifting_noise(9000, 500.0)
    plain = filter_and_resample(x, 500.0, Fraction(2, 5), band=(0.5, 40.0))
    moved = x + 1e5 + 3 * np.arange(9000)
    shifted = filter_and_resample(moved, 500.0, Fraction(2, 5), band=(0.5, 40.0))
    np.testing.assert_allclose(shifted, plain, atol=1e-5)
    assert np.abs(plain).max() < 80


def test_it_is_symmetric_in_time():
    x = drifting_noise(4001, 250.0)
    forwards = filter_and_resample(x, 250.0, Fraction(1), band=(0.5, 40.0))
    backwards = filter_and_resample(x[::-1], 250.0, Fraction(1), band=(0.5, 40.0))
    np.testing.assert_allclose(backwards[::-1], forwards, atol=1e-8)
