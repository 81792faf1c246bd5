import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as dsp

from eegkd.data import DataConfig, Recording, read_recording
from eegkd.data.recordings.filtering import filter_and_resample
from eegkd.data.recordings.preprocess import Reference, preprocess, resampling_ratio
from eegkd.errors import InputError
from tests.support.real import real

TEN_TWENTY = (
    "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz".split()  # noqa: SIM905
)


def bandpass(x, rate, band, order=4):
    return filter_and_resample(x, rate, Fraction(1), band=band, order=order)


def notch(x, rate, frequency):
    return filter_and_resample(x, rate, Fraction(1), notches=(frequency,))


def resample(x, old, new):
    config = DataConfig(rate=new, zscore="none")
    return preprocess(make(x, old), config).signal[0]


def sine(frequency, rate=250.0, seconds=20.0, phase=0.3):
    return np.sin(
        2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate + phase
    )


def make(signal, rate=250.0, channels=("Fz", "Cz", "Pz")):
    signal = np.atleast_2d(np.asarray(signal, np.float32))
    names = channels[: len(signal)]
    return Recording(
        signal=signal,
        channels=names,
        kinds=("eeg",) * len(names),
        units=("uV",) * len(names),
        rate=rate,
        source="x.edf",
    )


def noise(channels=3, rate=250.0, seconds=8.0, seed=0):
    shape = (channels, round(rate * seconds))
    return make(30 * np.random.default_rng(seed).normal(size=shape), rate)


def gain(y, x):
    inner = slice(len(x) // 4, -len(x) // 4)
    return np.sqrt(np.mean(y[inner] ** 2) / np.mean(x[inner] ** 2))


@pytest.mark.parametrize("frequency", [0.3, 0.6, 2.0, 10.0, 30.0, 40.0, 55.0, 80.0])
def test_bandpass_has_butterworths_gain_squared(frequency):
    low, high, order, rate = 0.5, 40.0, 4, 250.0
    x = sine(frequency, rate, 60.0)
    # The bilinear transform bends frequencies; the band-pass maps w to (w^2-p)/(bw).
    w, w1, w2 = (np.tan(np.pi * f / rate) for f in (frequency, low, high))
    q = (w**2 - w1 * w2) / (w * (w2 - w1))
    want = 1 / (1 + q ** (2 * order))
    assert gain(bandpass(x, rate, (low, high), order), x) == pytest.approx(
        want, rel=5e-3, abs=1e-4
    )


def test_bandpass_shifts_no_phase_and_drops_offsets():
    x = sine(10.0)
    y = bandpass(x + 5000, 250.0, (0.5, 40.0))
    np.testing.assert_allclose(y[1000:-1000], x[1000:-1000], atol=0.01)
    pulse = np.zeros(2001)
    pulse[1000] = 1
    response = bandpass(pulse, 250.0, (0.5, 40.0))
    np.testing.assert_allclose(response, response[::-1], atol=2e-6)


def test_a_lower_edge_of_0_keeps_the_offset():
    y = bandpass(sine(3.0) + 7, 250.0, (0.0, 20.0))
    np.testing.assert_allclose(y[500:-500], sine(3.0)[500:-500] + 7, atol=1e-3)


def test_a_notch_fits_closer_to_half_the_rate_than_an_edge():
    line, brain = sine(60.0, 128.0), sine(10.0, 128.0)
    config = DataConfig(notch=60.0, band=(0.3, 0.0), zscore="none")
    y = preprocess(make(100 * (line + brain), 128.0), config).signal[0]
    np.testing.assert_allclose(y[600:-600], 100 * brain[600:-600], atol=2)
    with pytest.raises(InputError, match="set --data.notch below 57.6 Hz"):
        preprocess(make(line, 120.0), config)


def test_notch_removes_the_line_and_nothing_else():
    line, near, brain = sine(50.0), sine(45.0), sine(10.0)
    assert gain(notch(line, 250.0, 50.0), line) < 1e-3
    assert gain(notch(near, 250.0, 50.0), near) > 0.9
    np.testing.assert_allclose(
        notch(brain, 250.0, 50.0)[500:-500], brain[500:-500], atol=0.01
    )


def test_notch_takes_harmonics_inside_the_band():
    recording = make(
        100 * (sine(50.0, 500.0) + sine(100.0, 500.0) + sine(12.0, 500.0)), 500.0
    )
    config = DataConfig(notch=50.0, band=(0.5, 120.0), zscore="none")
    y = preprocess(recording, config).signal[0]
    want = 100 * sine(12.0, 500.0)
    np.testing.assert_allclose(y[2000:-2000], want[2000:-2000], atol=2)


@pytest.mark.parametrize(
    ("old", "new"),
    [(173.61, 200.0), (500.0, 200.0), (256.0, 200.0), (100.0, 200.0), (160.0, 128.0)],
)
def test_resampling_keeps_a_sine_where_it_is(old, new):
    x = sine(7.0, old) + 250
    y = resample(x, old, new)
    assert len(y) == round(len(x) * new / old)
    want = np.sin(2 * np.pi * 7.0 * np.arange(len(y)) / new + 0.3) + 250
    np.testing.assert_allclose(y[200:-200], want[200:-200], atol=5e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 3000),
    st.sampled_from([100.0, 128.0, 173.61, 199.99996, 250.0, 256.0, 500.0, 1000.0]),
    st.sampled_from([100.0, 128.0, 200.0, 256.0]),
)
def test_resampled_length_is_the_rounded_duration(length, old, new):
    y = resample(np.random.default_rng(0).normal(size=length), old, new)
    assert abs(len(y) - length * new / old) <= 0.51
    assert np.isfinite(y).all()


@given(
    st.sampled_from([173.61, 199.99996, 256.0, 512.5, 1000 / 3]),
    st.sampled_from([100.0, 128.0, 200.0]),
    st.integers(1, 10**8),
)
def test_the_resampling_ratio_never_drifts(old, new, num):
    ratio = resampling_ratio(old, new, num)
    assert abs(float(ratio) - new / old) * num <= 0.01 + 1e-15 * num
    assert resampling_ratio(256.0, new, num) == Fraction(new) / 256


def test_short_recordings_get_a_simple_ratio():
    assert resampling_ratio(173.61, 200.0, 4097).denominator < 2000


def test_resampling_suppresses_what_would_alias():
    x = sine(180.0, 500.0)
    assert np.abs(resample(x, 500.0, 200.0)[200:-200]).max() < 5e-3


def test_equal_rates_change_nothing():
    x = sine(5.0)
    np.testing.assert_array_equal(resample(x, 250.0, 250.0), x.astype(np.float32))


def test_preprocess_is_the_steps_in_order():
    recording = noise()
    config = DataConfig(
        channels=("Pz", "Fz"), rate=200.0, band=(1.0, 60.0), notch=50.0, zscore="none"
    )
    out = preprocess(recording, config)
    assert out.channels == ("Pz", "Fz")
    assert out.rate == 200.0
    assert out.units == ("uV", "uV")
    x = recording.signal[[2, 0]].astype(float)
    x = dsp.sosfiltfilt(
        dsp.butter(4, [1, 60], "bandpass", fs=250, output="sos"), x, padlen=262
    )
    x = dsp.filtfilt(*dsp.iirnotch(50, 30, fs=250), x, padlen=150)
    want = dsp.resample(x, 1600, axis=1)
    np.testing.assert_allclose(out.signal[:, 400:-400], want[:, 400:-400], atol=0.05)


def test_nothing_asked_is_nothing_done():
    recording = noise()
    out = preprocess(recording, DataConfig(zscore="none"))
    np.testing.assert_array_equal(out.signal, recording.signal)
    assert out.filled == ()


def test_zscore_of_the_recording():
    recording = noise()
    out = preprocess(recording, DataConfig(zscore="recording"))
    np.testing.assert_allclose(out.signal.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(out.signal.std(axis=1), 1, atol=1e-5)
    assert out.units == ("zscore",) * 3


def test_masked_channels_stay_zero_through_every_step():
    config = DataConfig(
        channels=("Fz", "O1", "Cz"),
        policy="mask",
        montage="average",
        rate=200.0,
        band=(1.0, 40.0),
        zscore="recording",
    )
    out = preprocess(noise(), config)
    assert out.filled == ("O1",)
    assert out.reference == ("Fz", "Cz", "Pz")
    assert not out.signal[1].any()
    every = preprocess(noise(), dataclasses.replace(config, channels=()))
    np.testing.assert_array_equal(out.signal[[0, 2]], every.signal[:2])


def head(seed=0, seconds=4):
    """Nineteen electrodes, and what is no scalp electrode or holds no signal."""
    names = [*TEN_TWENTY, "A1", "A2", "Fz-Pz", "ECG", "F9"]
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(24, 200 * seconds)) * 20
    signal[23, 7] = np.nan
    return Recording(
        signal=signal.astype(np.float32),
        channels=tuple(names),
        kinds=("eeg",) * 22 + ("ecg", "eeg"),
        units=("uV",) * 24,
        rate=200.0,
        source="x.edf",
    )


@pytest.mark.parametrize("flat", [(), (1, 18)])
def test_an_average_is_the_heads_whatever_is_picked(flat):
    raw = head()
    raw.signal[list(flat)] = 3.0
    config = DataConfig(montage="average", band=(1, 40), zscore="none")
    few = preprocess(raw, dataclasses.replace(config, channels=("F3", "C3", "O1")))
    usable = [i for i in range(19) if i not in flat]
    assert few.reference == tuple(raw.channels[i] for i in usable)
    pick = dataclasses.replace(config, channels=few.reference)
    every = preprocess(raw, pick)
    rows = [every.channels.index(name) for name in few.channels]
    np.testing.assert_allclose(few.signal, every.signal[rows], atol=1e-4)
    want = raw.signal[[2, 4, 8]] - raw.signal[usable].mean(0, dtype=float)
    plain = dataclasses.replace(pick, channels=few.channels, band=None)
    np.testing.assert_allclose(preprocess(raw, plain).signal, want, atol=1e-4)
    with pytest.raises(InputError, match="F9 holds NaN"):
        preprocess(raw, dataclasses.replace(plain, channels=("F3", "F9")))


def test_a_models_reference_is_kept_on_a_recording_of_other_electrodes():
    raw, names = head(), head().channels[:19]
    config = DataConfig(channels=("F3", "O1"), montage="average", zscore="none")
    reference = Reference(names, names[:18])
    more = dataclasses.replace(
        raw,
        signal=np.concatenate([raw.signal[:19], 50 * raw.signal[2:4]]),
        channels=(*names, "AF3", "AF4"),
        kinds=("eeg",) * 21,
        units=("uV",) * 21,
    )
    got = preprocess(more, config, reference)
    assert got.reference == names
    np.testing.assert_array_equal(got.signal, preprocess(raw, config).signal)
    assert len(preprocess(more, config).reference) == 21
    more.signal[18] = 0  # which some training recording lacked as well
    assert preprocess(more, config, reference).reference == names[:18]
    more.signal[1] = 0
    with pytest.raises(InputError, match="missing channels Fp2: .* 18 electrodes"):
        preprocess(more, config, reference)
    for policy in ("interpolate", "mask"):
        given = dataclasses.replace(config, policy=policy)
        got = preprocess(more, given, reference)
        assert got.reference == (names[0], *names[2:18])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"band": (0.5, 45.0)}, r"x\.edf: --data\.band 45 Hz .* below 45 Hz"),
        ({"band": (0.5, 70.0)}, r"x\.edf: --data\.band 70 Hz .* 100 samples a second"),
        ({"notch": 60.0}, r"x\.edf: --data\.notch 60 Hz"),
        ({"band": (20.0, 10.0)}, r"--data\.band 20 10"),
        ({"band": (-1.0, 10.0)}, r"--data\.band -1 10"),
        ({"band": (0.5, 40.0), "rate": 64.0}, r"--data\.band .* --data\.rate 64"),
        ({"rate": 0.0}, r"--data\.rate"),
        ({"rate": -5.0}, r"--data\.rate"),
        ({"notch": -50.0}, r"--data\.notch"),
        ({"filter_order": 0}, r"--data\.filter_order"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        preprocess(noise(rate=100.0), DataConfig(**changes))


def test_the_edge_rule_counts_the_native_rate():
    config = DataConfig(band=(0.5, 44.0), rate=200.0)
    assert preprocess(noise(rate=100.0), config).signal.shape == (3, 1600)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_no_number_is_named(value):
    recording = noise()
    recording.signal[1, 500] = value
    with pytest.raises(InputError, match=r"x\.edf: channel Cz holds NaN .* at 2 s"):
        preprocess(recording, DataConfig())
    others = preprocess(recording, DataConfig(channels=("Fz", "Pz")))
    assert np.isfinite(others.signal).all()


@pytest.mark.parametrize("policy", ["error", "interpolate", "mask"])
def test_a_flat_channel_needs_a_policy(policy):
    recording = noise(1)
    flat = make(np.vstack([recording.signal, np.full((1, 2000), 3.0)]))
    if policy == "mask":
        assert preprocess(flat, DataConfig(policy=policy)).filled == ("Cz",)
    else:
        with pytest.raises(InputError, match=r"x\.edf.*Cz"):
            preprocess(flat, DataConfig(policy=policy))


def test_preprocessing_leaves_its_input_alone():
    recording = noise()
    before = recording.signal.copy()
    config = DataConfig(montage="average", band=(1, 40), rate=100.0, zscore="recording")
    preprocess(recording, config)
    np.testing.assert_array_equal(recording.signal, before)


def test_an_ecg_record_goes_the_same_way():
    recording = dataclasses.replace(
        noise(2), channels=("II", "V1"), kinds=("ecg", "ecg"), units=("mV", "mV")
    )
    out = preprocess(recording, DataConfig(rate=100.0, band=(0.5, 40.0), zscore="none"))
    assert out.channels == ("II", "V1")
    assert out.units == ("mV", "mV")


def test_real_eegmat_recording():
    recording = read_recording(real("eegmat", "Subject03_2.edf"))
    config = DataConfig(montage="double_banana", rate=200.0, band=(0.5, 45), notch=50.0)
    out = preprocess(recording, config)
    assert out.signal.shape == (18, 12400)
    assert 1 < np.median(out.signal.std(axis=1)) < 100
