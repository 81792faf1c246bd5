"""Caps whose electrodes have names of their own."""

import numpy as np
import pytest

from eegkd.data import DataConfig, Recording
from eegkd.data.recordings.layouts import name_by_layout
from eegkd.data.recordings.preprocess import preprocess
from eegkd.data.recordings.recording import Span
from eegkd.errors import InputError

CAP = tuple(f"{letter}{i}" for letter in "ABCD" for i in range(1, 33))


def make(channels=CAP, **changes):
    rng = np.random.default_rng(0)
    signal = 30 * rng.normal(size=(len(channels), 400))
    return Recording(
        signal=signal.astype(np.float32),
        channels=tuple(channels),
        kinds=("eeg",) * len(channels),
        units=("uV",) * len(channels),
        rate=100.0,
        source="a.edf",
        **changes,
    )


def picked(recording, **options):
    return preprocess(recording, DataConfig(**options))


def test_letters_of_a_cap_are_not_taken_for_10_20():
    with pytest.raises(InputError) as caught:
        picked(make(), channels=("C3", "C4"))
    message = str(caught.value)
    assert "missing channels C3, C4" in message
    assert "The C3 of this file is of another scheme than 10-20" in message
    # The two cures that it names:
    own = picked(make(), channels=("own C3",))
    np.testing.assert_array_equal(own.signal[0], make().signal[CAP.index("C3")])
    mapped = picked(make(), channels=("C3", "C4", "Cz"), layout="biosemi128")
    places = [CAP.index(name) for name in ("D19", "B22", "A1")]
    np.testing.assert_array_equal(mapped.signal, make().signal[places])


def test_the_average_of_a_cap_holds_its_a1_and_a2():
    average = picked(make(), montage="average")
    assert len(average.reference) == 128
    assert {"own A1", "own A2", "B1"} <= set(average.reference)


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("biosemi16", {"A1": "Fp1", "A7": "C3", "A16": "O2"}),
        ("biosemi32", {"A1": "Fp1", "A8": "C3", "A32": "Cz"}),
        ("biosemi64", {"A1": "Fp1", "A13": "C3", "B18": "C4", "B32": "O2"}),
        ("biosemi128", {"A1": "Cz", "C29": "Fp1", "D23": "T7", "A2": "own A2"}),
        ("biosemi160", {"A1": "Cz", "E4": "C3", "D9": "Fp1"}),
        ("biosemi256", {"A1": "Cz", "G16": "C3", "E29": "Fp1", "F3": "own F3"}),
    ],
)
def test_electrodes_of_a_layout_are_named_by_10_20(layout, names):
    renamed = name_by_layout(make(names), layout)
    assert dict(zip(names, renamed.channels, strict=True)) == names


def test_a_layout_names_pairs_marks_and_spans_too():
    span = Span(onset_s=1, duration_s=1, reason="BAD", channels=("D19",))
    recording = make(["D19", "A1", "D19-A1"], bad_channels=("A1",), bad_spans=(span,))
    renamed = name_by_layout(recording, "biosemi128")
    assert renamed.channels == ("C3", "Cz", "C3-Cz")
    assert renamed.bad_channels == ("Cz",)
    assert renamed.bad_spans[0].channels == ("C3",)


@pytest.mark.parametrize("channels", [("Fp1", "Cz"), ("C3", "C4", "Cz", "A1", "A2")])
def test_a_layout_changes_no_recording_of_10_20_names_and_says_so(channels):
    # A model of a BioSemi cap may be used on another one.
    recording = picked(make(channels), layout="biosemi128")
    assert recording.channels == channels
    said = "electrodes have 10-20 names, not those of biosemi128: they keep them"
    assert recording.notes == (said,)
    mapped = picked(make(("D19", "A1", "B22")), layout="biosemi128")
    assert mapped.channels == ("C3", "Cz", "C4")
    assert mapped.notes == ()


@pytest.mark.parametrize(
    "channels",
    [
        ("Fp1", "C3", "C4", "Cz", "O1", "A1", "A2", "T3", "M1", "F9", "P10"),
        ("C3", "C4", "E1", "E2", "M1", "M2", "X1", "X2", "X3", "DC1", "T1", "T2"),
        ("C3-A2", "C4-A1", "O1-A2", "B1"),
    ],
)
def test_10_20_names_stay(channels):
    recording = make(channels)
    assert name_by_layout(recording) is recording


@pytest.mark.parametrize(
    ("channels", "own"),
    [
        ([f"C{i}" for i in range(1, 11)], "own C3"),  # a depth electrode
        ([f"{x}{i}" for x in "ABCD" for i in range(1, 5)], "own C3"),
        (["Fz", "O1", "O2", *(f"O{i}" for i in range(3, 9))], "own O1"),
        (["C3-C4", "C7-C8", "C9-C10"], "own C3-C4"),
    ],
)
def test_a_letter_of_another_scheme_is_its_own(channels, own):
    assert own in name_by_layout(make(channels)).channels


@pytest.mark.parametrize(
    "names", [[f"E{i}" for i in range(1, 129)], [str(i) for i in range(1, 65)]]
)
def test_a_cap_of_numbers_is_known_for_what_it_is(names):
    with pytest.raises(InputError, match="are those of a cap"):
        picked(make(names), channels=("C3",))
    assert picked(make(names)).channels == tuple(names)


def test_a_recorded_reference_is_told_from_an_absent_channel():
    recording = make(["Fp1", "Cz", "O2"])
    recording.signal[1] = 0
    with pytest.raises(InputError) as caught:
        picked(recording)
    message = str(caught.value)
    assert "A flat channel counts as missing" in message
    words = message.partition("Without it: --data.channels ")[2].partition(".")[0]
    assert picked(recording, channels=tuple(words.split())).channels == ("Fp1", "O2")
