import dataclasses

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegkd.data import Recording, read_recording
from eegkd.data.recordings.montage import (
    DOUBLE_BANANA,
    default_channels,
    pick_channels,
    spline_weights,
    to_montage,
)
from eegkd.errors import InputError
from tests.support.real import real

TEN_TWENTY = (
    "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz".split()  # noqa: SIM905
)


def make(channels=TEN_TWENTY, num_samples=50, seed=0, kinds=None):
    rng = np.random.default_rng(seed)
    return Recording(
        signal=rng.normal(size=(len(channels), num_samples)).astype(np.float32) * 20,
        channels=tuple(channels),
        kinds=kinds or ("eeg",) * len(channels),
        units=("uV",) * len(channels),
        rate=100.0,
        source="x.edf",
    )


def row(recording, name):
    return recording.signal[recording.channels.index(name)]


def test_picks_by_any_spelling_in_the_order_asked():
    recording = make()
    picked, present = pick_channels(recording, ["CZ", "T3", "EEG Fp1-Ref"])
    assert picked.channels == ("Cz", "T7", "Fp1")
    assert present.all()
    assert picked.filled == ()
    for name in picked.channels:
        np.testing.assert_array_equal(row(picked, name), row(recording, name))


def test_pairs_are_differences_taken_as_recorded_or_turned():
    recording = make(["F3", "C3", "P3-O1"])
    picked, _ = pick_channels(recording, ["F3-C3", "C3-F3", "P3-O1", "O1-P3"])
    want = row(recording, "F3") - row(recording, "C3")
    np.testing.assert_array_equal(row(picked, "F3-C3"), want)
    np.testing.assert_array_equal(row(picked, "C3-F3"), -want)
    np.testing.assert_array_equal(row(picked, "O1-P3"), -row(recording, "P3-O1"))


def test_double_banana_is_18_differences_that_chains_telescope():
    recording = make()
    banana = to_montage(recording, "double_banana")
    assert banana.channels == DOUBLE_BANANA
    assert len(DOUBLE_BANANA) == 18
    assert DOUBLE_BANANA[3:5] == ("P7-O1", "Fp2-F8")
    ends = row(recording, "Fp1") - row(recording, "O1")
    np.testing.assert_allclose(banana.signal[:4].sum(0), ends, atol=1e-4)
    np.testing.assert_allclose(banana.signal[8:12].sum(0), ends, atol=1e-4)


@given(st.integers(0, 5), st.floats(-500, 500))
def test_average_reference_removes_any_common_signal(seed, offset):
    recording = make(["Fz", "Cz", "Pz", "A1", "C3-A2"], seed=seed)
    average = to_montage(recording, "average")
    want = recording.signal.astype(float)
    want[:4] -= want[:3].mean(0)
    np.testing.assert_allclose(average.signal, want, atol=1e-4)
    shift = np.array([[offset]] * 4 + [[0]], np.float32)
    shifted = dataclasses.replace(recording, signal=recording.signal + shift)
    again = to_montage(shifted, "average").signal
    np.testing.assert_allclose(again, average.signal, atol=1e-3)


def test_average_leaves_masked_and_other_channels_alone():
    recording = make(["Fz", "Cz", "Pz", "ECG"], kinds=("eeg", "eeg", "eeg", "ecg"))
    average = to_montage(recording, "average", np.array([True, True, False, True]))
    np.testing.assert_array_equal(average.signal[2:], recording.signal[2:])
    np.testing.assert_allclose(average.signal[:2].sum(0), 0, atol=1e-4)


def test_average_is_over_electrodes_that_hold_a_signal():
    recording = make(["Fz", "Cz", "Pz", "Oz"])
    recording.signal[1] = 7.0
    recording.signal[2, 3] = np.nan
    average = to_montage(recording, "average")
    assert average.reference == ("Fz", "Oz")
    np.testing.assert_allclose(average.signal[[0, 3]].sum(0), 0, atol=1e-4)


def test_average_of_a_bipolar_recording_is_refused():
    with pytest.raises(InputError, match=r"x\.edf: --data\.montage average.*Fp1-F7"):
        to_montage(make(["Fp1-F7", "F7-T7"]), "average")


def test_a_missing_channel_is_named_with_the_cures():
    with pytest.raises(InputError) as caught:
        pick_channels(make(["Fz", "Cz"]), ["Fz", "Oz", "C3"])
    for words in (
        "x.edf",
        "Oz, C3",
        "Fz, Cz",
        "--data.channels",
        "interpolate",
        "mask",
    ):
        assert words in str(caught.value)


def test_masking_tells_which_channels_are_zeros():
    recording = make(["Fz", "Cz"])
    picked, present = pick_channels(recording, ["Fz", "Oz", "Cz-Pz"], "mask")
    assert present.tolist() == [True, False, False]
    assert picked.filled == ("Oz", "Cz-Pz")
    assert not picked.signal[1:].any()
    assert picked.signal[0].any()


def test_a_recording_without_any_wanted_channel_is_never_masked():
    with pytest.raises(InputError, match="missing channels Oz, C3"):
        pick_channels(make(["Fz", "Cz"]), ["Oz", "C3"], "mask")


@pytest.mark.parametrize("level", [0.0, 317.0])
def test_a_flat_channel_counts_as_missing(level):
    recording = make()
    recording.signal[3] = level
    with pytest.raises(InputError, match=r"x\.edf: missing channels F4.*flat: F4"):
        pick_channels(recording, ["Fz", "F4"])
    with pytest.raises(InputError, match="flat: F4"):
        pick_channels(recording, ["F4-C4"])
    _, present = pick_channels(recording, ["Fz", "F4"], "mask")
    assert present.tolist() == [True, False]
    filled, present = pick_channels(recording, ["Fz", "F4"], "interpolate")
    assert present.all()
    assert filled.filled == ("F4",)
    assert filled.signal[1].std() > 1


def test_bridged_electrodes_have_no_difference():
    recording = make(["F3", "C3", "Cz"])
    recording.signal[1] = recording.signal[0]
    with pytest.raises(InputError, match="missing channels F3-C3"):
        pick_channels(recording, ["F3-C3", "C3-Cz"])


def test_interpolation_is_mnes():
    recording = make(num_samples=300)
    info = mne.create_info(list(TEN_TWENTY), 100, "eeg", verbose="error")
    raw = mne.io.RawArray(recording.signal * 1e-6, info, verbose="error")
    known = mne.channels.get_builtin_montages()
    newest = next(x for x in ("colin27_1005", "standard_1005") if x in known)
    raw.set_montage(newest)
    raw.info["bads"] = ["T8", "Fz"]
    raw.interpolate_bads(verbose="error")
    keep = [i for i, name in enumerate(TEN_TWENTY) if name not in ("T8", "Fz")]
    part = dataclasses.replace(
        recording,
        signal=recording.signal[keep],
        channels=tuple(TEN_TWENTY[i] for i in keep),
        kinds=("eeg",) * len(keep),
        units=("uV",) * len(keep),
    )
    filled, present = pick_channels(part, TEN_TWENTY, "interpolate")
    assert present.all()
    np.testing.assert_allclose(filled.signal, raw.get_data() * 1e6, atol=1e-3)
    pair, _ = pick_channels(part, ["Fz-Cz"], "interpolate")
    alone, _ = pick_channels(part, ["Fz"], "interpolate")
    want = alone.signal[0] - row(part, "Cz")
    np.testing.assert_allclose(pair.signal[0], want, atol=1e-4)


def test_spline_weights_keep_a_constant():
    weights = spline_weights(tuple(TEN_TWENTY[:16]), ("Fz", "Pz"))
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("have", "want"),
    [(["Fp1-F7", "F7-T7", "Fz-Cz"], ["P7-O1"]), (["Fz", "Cz"], ["Pz"]), (None, ["Q9"])],
)
def test_interpolation_that_cannot_be_is_refused(have, want):
    with pytest.raises(InputError, match="cannot interpolate .* --data.policy mask"):
        pick_channels(make(have or TEN_TWENTY), want, "interpolate")


def test_a_channel_twice_or_an_unknown_option_is_refused():
    with pytest.raises(InputError, match="T7 twice"):
        pick_channels(make(), ["T3", "Cz", "T7"])
    with pytest.raises(InputError, match="error, interpolate or mask"):
        pick_channels(make(), ["Cz"], "zeros")
    with pytest.raises(InputError, match="referential, average or double_banana"):
        to_montage(make(), "laplacian")


def test_default_channels_are_eeg_then_ecg():
    mixed = make(["Cz", "ECG", "Status"], kinds=("eeg", "ecg", "misc"))
    assert default_channels(mixed) == ("Cz",)
    leads = make(["II", "PLETH"], kinds=("ecg", "misc"))
    assert default_channels(leads) == ("II",)
    with pytest.raises(InputError, match="no EEG or ECG channel among Status"):
        default_channels(make(["Status"], kinds=("misc",)))


def test_real_montages():
    banana = to_montage(read_recording(real("eegmat", "Subject01_1.edf")), "average")
    assert "ECG" in banana.channels
    old = read_recording(real("formats", "MB0400FU.EDF"))
    assert to_montage(old, "double_banana").signal.shape == (18, 5800)
