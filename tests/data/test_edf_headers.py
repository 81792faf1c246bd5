"""Headers of EDF and BDF files whose numbers are none, or none that can be."""

import numpy as np
import pytest

from eegkd.data import DataConfig, read_recording
from eegkd.data.recordings.preprocess import preprocess
from eegkd.errors import InputError
from tests.support.edf import write_edf
from tests.support.gdf import write_gdf

NAMES = ("Fp1", "Cz", "O2")
RATE = 100
# A signal's share of the header before the field, and the width of the field.
PHYSICAL_MIN, PHYSICAL_MAX, DIGITAL_MIN, DIGITAL_MAX, SAMPLES = 104, 112, 120, 128, 216


def noise(channels=3, seconds=4):
    return 30 * np.random.default_rng(0).normal(size=(channels, seconds * RATE))


def put(path, place, text, width=8):
    data = bytearray(path.read_bytes())
    data[place : place + width] = text.encode("latin-1").ljust(width)
    path.write_bytes(data)
    return path


def field(offset, signal, num_signals=3, width=8):
    return 256 + offset * num_signals + width * signal


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_recording(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("text", ["100.0", "1e2", "abc", "", "0", "-5"])
def test_samples_that_are_no_whole_number_are_named_with_their_place(tmp_path, text):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    put(path, field(SAMPLES, 1), text)
    message = refusal(path)
    assert f"samples in a data record of signal 'Cz' is {text!r}" in message
    place = int(message.rpartition("from byte ")[2].partition(" ")[0])
    put(path, place, "100")
    assert read_recording(path).signal.shape == (3, 400)


@pytest.mark.parametrize(
    "text", ["0", "-1", "1e-320", "1e9", "-inf", "nan", "1,0", "abc", ""]
)
def test_a_record_duration_that_no_recording_has(tmp_path, text):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    put(path, 244, text)
    message = refusal(path)
    assert f"a data record lasts {text!r} seconds" in message
    place = int(message.rpartition("from byte ")[2].partition(" ")[0])
    put(path, place, "2")
    assert read_recording(path).rate == 50


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (PHYSICAL_MIN, "3276.7"),  # equal to the maximum
        (PHYSICAL_MAX, "-3276.7"),
        (DIGITAL_MIN, "32767"),
        (PHYSICAL_MAX, "nan"),
        (PHYSICAL_MIN, "-inf"),
        (DIGITAL_MAX, "inf"),
    ],
)
def test_a_channel_without_a_scale_counts_as_missing(tmp_path, offset, text):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    put(path, field(offset, 1), text)
    recording = read_recording(path)
    assert recording.bad_channels == ("Cz",)
    assert recording.notes == ("channel Cz has no scale in the header",)
    np.testing.assert_allclose(recording.signal[[0, 2]], noise()[[0, 2]], atol=0.1)
    assert preprocess(recording, DataConfig()).channels == ("Fp1", "O2")
    with pytest.raises(InputError, match=r"missing channels Cz .*marked as bad: Cz"):
        preprocess(recording, DataConfig(channels=("Fp1", "Cz")))


def test_a_file_without_any_scale_says_so(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    for signal in range(3):
        put(path, field(PHYSICAL_MAX, signal), "-3276.7")
    recording = read_recording(path)
    with pytest.raises(InputError, match="all 3 EEG channels .*Fp1 has no scale"):
        preprocess(recording, DataConfig())


def test_a_gdf_channel_without_a_scale_counts_as_missing(tmp_path):
    path = write_gdf(tmp_path / "a.gdf", noise(), NAMES, [(1, 769, 10)])
    assert read_recording(path).bad_channels == ()
    data = bytearray(path.read_bytes())
    low, high = (256 + 3 * offset + 8 for offset in (104, 112))  # of the second one
    data[high : high + 8] = data[low : low + 8]
    path.write_bytes(data)
    recording = read_recording(path)
    assert recording.bad_channels == ("Cz",)
    assert recording.notes == ("channel Cz has no scale in the header",)


def test_a_scale_that_is_no_number_is_named(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    put(path, field(DIGITAL_MAX, 2), "many")
    assert "digital maximum of signal 'O2' is 'many'" in refusal(path)


def test_a_decimal_comma_and_an_inverted_scale_are_read(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    put(path, field(PHYSICAL_MAX, 0), "3276,7")
    np.testing.assert_allclose(read_recording(path).signal, noise(), atol=0.1)
    put(path, field(PHYSICAL_MAX, 1), "-3276.7")
    put(path, field(PHYSICAL_MIN, 1), "3276.7")
    recording = read_recording(path)
    np.testing.assert_allclose(recording.signal[1], -noise()[1], atol=0.1)
    assert recording.bad_channels == ()


def test_fields_that_are_filled_with_nul_are_read(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    data = path.read_bytes()
    head = bytearray(data[: 256 * 4])
    for start, stop in ((184, 192), (236, 256), (256, 256 + 3 * 16), (544, 1024)):
        head[start:stop] = head[start:stop].replace(b" ", b"\0")
    path.write_bytes(bytes(head) + data[256 * 4 :])
    recording = read_recording(path)
    assert recording.channels == NAMES
    np.testing.assert_allclose(recording.signal, noise(), atol=0.1)


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        (field(SAMPLES, 0), "999999", "truncated"),
        (field(SAMPLES, 0), "99999999", "holds 1e+08 samples"),
        (236, "99999999", "truncated"),
        (184, "512", "no EDF file"),
        (252, "9999", "no EDF file"),
        (252, "-1", "no EDF file"),
    ],
)
def test_sizes_are_compared_with_the_file(tmp_path, place, text, said):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES)
    put(path, place, text, 4 if place == 252 else 8)
    assert said in refusal(path)


def test_more_records_than_stated_are_read_and_said(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, num_records=3)
    recording = read_recording(path)
    assert recording.signal.shape == (3, 400)
    assert recording.notes == ("the header says 3 data records; all 4 were read",)


def test_annotations_outside_the_recording_are_counted(tmp_path):
    marks = [(1, 1, "in"), (70, 5, "out"), (80, 5, "out")]
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, annotations=marks)
    recording = read_recording(path)
    assert [event.label for event in recording.events] == ["in"]
    said = "2 annotations lie outside the recording, left out"
    assert recording.notes == (said,)


def test_annotations_in_latin1_are_read_and_said(tmp_path):
    text = "d\u00e9but de crise"
    path = write_edf(tmp_path / "a.edf", noise(), NAMES, annotations=[(2, 1.5, text)])
    assert read_recording(path).notes == ()
    utf8, latin = text.encode(), text.encode("latin-1")
    path.write_bytes(path.read_bytes().replace(utf8 + b"\x14", latin + b"\x14\0"))
    recording = read_recording(path)
    (event,) = recording.events
    assert (event.onset_s, event.duration_s, event.label) == (2.0, 1.5, text)
    assert recording.notes == ("its annotations are no UTF-8 and were read as Latin-1",)


def test_names_that_are_no_ascii_are_read(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(), ("Fp1", "Cz", "K\u00f6rper 1"))
    assert read_recording(path).channels == ("Fp1", "Cz", "K\u00f6rper 1")


def test_times_count_from_the_first_record(tmp_path):
    marks = [(5.5, 1.0, "seizure")]
    onsets = (5, 6, 7, 8)
    path = write_edf(
        tmp_path / "a.edf", noise(), NAMES, annotations=marks, record_onsets=onsets
    )
    (event,) = read_recording(path).events
    assert (event.onset_s, event.duration_s) == (0.5, 1.0)


def test_resampled_channels_are_named(tmp_path):
    path = write_edf(
        tmp_path / "a.edf", noise(), ("Fp1", "Cz", "SpO2"), slower={"SpO2": 50, "Cz": 2}
    )
    recording = read_recording(path)
    assert recording.resampled == ("Cz", "SpO2")
    assert preprocess(recording, DataConfig()).resampled == ("Cz",)
    only = preprocess(recording, DataConfig(channels=("Fp1",)))
    assert only.resampled == ()
