"""What files say beside their samples: marks, recorded of time, dimensions, rates."""

import mne
import numpy as np
import pytest
import scipy.io

from eegkd.data import DataConfig, read_recording
from eegkd.data.recordings.names import channel_kinds
from eegkd.data.recordings.preprocess import preprocess
from eegkd.data.recordings.reading import read_events
from eegkd.data.recordings.recording import Event, Span
from eegkd.data.recordings.signals import sort_marks
from eegkd.data.windows.cutting import window_recording
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError
from tests.support.edf import write_edf

NAMES = ("Fp1", "Fp2", "F3", "F4")


def noise(channels=4, seconds=20, rate=100):
    return 30 * np.random.default_rng(0).normal(size=(channels, seconds * rate))


def raw(marks=(), *, seconds=20, date=None):
    info = mne.create_info(list(NAMES), 100, "eeg")
    made = mne.io.RawArray(noise(seconds=seconds) * 1e-6, info, verbose="error")
    made.set_meas_date(date)
    if marks:
        made.set_annotations(mne.Annotations(*zip(*marks, strict=True)))
    return made


def save(made, path):
    made.save(path, verbose="error")
    return path


def facts(events):
    return [(e.onset_s, e.duration_s, e.label) for e in events]


@pytest.mark.parametrize("date", [None, 0])
@pytest.mark.parametrize(("start", "onset"), [(20, 10.0), (25, 5.0), (0, 30.0)])
def test_events_of_a_cropped_recording(tmp_path, date, start, onset):
    made = raw([(30, 8, "seizure")], seconds=60, date=date).crop(start, 50)
    path = save(made, tmp_path / "a_raw.fif")
    assert facts(read_recording(path).events) == [(onset, 8.0, "seizure")]
    samples, _ = mne.events_from_annotations(made, verbose="error")
    assert (samples[0, 0] - made.first_samp) / 100 == onset
    assert read_events(path) == read_recording(path).events


def test_bad_stretches_and_edges_are_no_events(tmp_path):
    marks = [
        (0, 8, "rest"),
        (8, 4, "BAD_muscle"),
        (12, 1, "bad movement"),
        (13, 0, "EDGE boundary"),
        (14, 6, "task"),
        (14, 6, "edgewise"),
    ]
    path = save(raw(marks), tmp_path / "a_raw.fif")
    recording = read_recording(path)
    assert [e.label for e in recording.events] == ["rest", "task", "edgewise"]
    assert read_events(path) == recording.events
    got = [(s.onset_s, s.duration_s, s.reason) for s in recording.bad_spans]
    assert got == [
        (8, 4, "BAD_muscle"),
        (12, 1, "bad movement"),
        (13, 0, "EDGE boundary"),
    ]
    config = DataConfig(rate=100.0, band=(0.5, 40.0), window_s=4.0)
    windows, _ = window_recording(
        recording, config, classes=("rest", "task", "edgewise")
    )
    assert windows.label.tolist() == [0, 0, -1, -1, 2]


def test_a_folder_has_no_class_of_a_bad_mark(tmp_path):
    folder = tmp_path / "rec"
    folder.mkdir()
    marks = [(0, 8, "rest"), (8, 4, "BAD_muscle"), (14, 6, "task")]
    save(raw(marks), folder / "s_raw.fif")
    options = {"band": (0.5, 40.0), "rate": 100.0, "window_s": 4.0, "workers": 1}
    config = DataConfig(corpus="folder", root=str(folder), **options)
    store = prepare(config, tmp_path / "store", progress=False)
    assert store.manifest["classes"] == ["rest", "task"]
    assert store.labels.tolist() == [0, 0, -1, 1, 1]
    (record,) = store.manifest["recordings"].values()
    assert record["left_out"] == {"BAD_muscle": 1}


def test_bad_channels_of_a_fif_count_as_missing(tmp_path):
    made = raw()
    made.info["bads"] = ["Fp2"]
    recording = read_recording(save(made, tmp_path / "a_raw.fif"))
    assert recording.bad_channels == ("Fp2",)
    assert preprocess(recording, DataConfig()).channels == ("Fp1", "F3", "F4")
    with pytest.raises(InputError, match="marked as bad: Fp2"):
        preprocess(recording, DataConfig(channels=NAMES))
    filled = preprocess(recording, DataConfig(channels=NAMES, policy="mask"))
    assert filled.filled == ("Fp2",)


def test_nan_in_a_bad_channel_stops_nobody(tmp_path):
    made = raw()
    made._data[1, 70] = np.nan
    made.info["bads"] = ["Fp2"]
    recording = read_recording(save(made, tmp_path / "a_raw.fif"))
    assert preprocess(recording, DataConfig()).channels == ("Fp1", "F3", "F4")


def test_nan_in_a_channel_beside_eeg_stops_only_who_uses_it(tmp_path):
    made = raw()
    made.set_channel_types({"F4": "eog"}, verbose="error")
    made.rename_channels({"F4": "EOG"})
    made._data[3, 70] = np.nan
    recording = read_recording(save(made, tmp_path / "a_raw.fif"))
    assert preprocess(recording, DataConfig()).channels == ("Fp1", "Fp2", "F3")
    with pytest.raises(InputError, match=r"channel EOG holds NaN .* at 0\.7 s"):
        preprocess(recording, DataConfig(channels=("Fp1", "EOG")))


def eeglab(path, events):
    places = np.array([(n,) for n in NAMES], dtype=[("labels", object)])
    kinds = [("type", object), ("latency", object), ("duration", object)]
    made = {
        **{"setname": "a", "filename": path.name, "filepath": "", "subject": ""},
        **{"nbchan": 4, "trials": 1, "pnts": 2000, "srate": 100.0, "xmin": 0.0},
        **{"xmax": 19.99, "data": noise().astype("f4"), "chanlocs": places},
        **{"icawinv": [], "icaweights": [], "icasphere": [], "icaact": []},
        **{"epoch": [], "event": np.array(events, dtype=kinds), "ref": "common"},
    }
    scipy.io.savemat(path, {"EEG": made})
    return path


def test_an_eeglab_boundary_is_a_splice_and_not_as_long_as_what_was_cut(tmp_path):
    events = [("rest", 1.0, 400.0), ("boundary", 1000.5, 5000.0), ("go", 1201.0, 0.0)]
    recording = read_recording(eeglab(tmp_path / "a.set", events))
    np.testing.assert_allclose(recording.signal, noise(), rtol=1e-5)
    assert facts(recording.events) == [(0.0, 4.0, "rest"), (12.0, 0.0, "go")]
    (span,) = recording.bad_spans
    assert (span.onset_s, span.duration_s, span.reason) == (9.995, 0.0, "boundary")


def brainvision(
    folder, markers, channels=("Ch1=FZ,,0.5,\u00b5V", "Ch2=CZ,,0.5,\u00b5V")
):
    (folder / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        "DataFile=a.eeg\nMarkerFile=a.vmrk\nDataFormat=BINARY\n"
        "DataOrientation=MULTIPLEXED\nNumberOfChannels=2\nSamplingInterval=10000\n"
        "[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n"
        + "\n".join(channels),
        "utf-8",
    )
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
        "DataFile=a.eeg\n[Marker Infos]\n" + "\n".join(markers)
    )
    noise(2).T.astype("<f4").tofile(folder / "a.eeg")
    return folder / "a.vhdr"


def test_brainvision_segments_and_bad_intervals_are_marks(tmp_path):
    markers = (
        "Mk1=New Segment,,1,1,0,20200101000000000000",
        "Mk2=Stimulus,S  7,101,1,0",
        "Mk3=New Segment,,601,1,0,20200101000100000000",
        "Mk4=Bad Interval,Bad Interval,801,200,0",
    )
    recording = read_recording(brainvision(tmp_path, markers))
    assert facts(recording.events) == [(1.0, 0.01, "Stimulus/S  7")]
    got = [(s.onset_s, s.duration_s, s.reason) for s in recording.bad_spans]
    assert got == [  # MNE drops the first one, at the start.
        (6.0, 0.0, "New Segment"),
        (8.0, 2.0, "Bad Interval/Bad Interval"),
    ]


def test_a_brainvision_channel_in_degrees_is_no_eeg(tmp_path):
    channels = ("Ch1=CZ,,0.5,\u00b5V", "Ch2=Skin,,0.5,C")
    recording = read_recording(brainvision(tmp_path, (), channels))
    assert recording.kinds == ("eeg", "misc")
    assert recording.units == ("uV", "n/a")


@pytest.mark.parametrize(
    "mark",
    [
        (np.nan, 1.0, "x"),
        (np.inf, 1.0, "x"),
        (1e300, 1.0, "x"),
        (1.0, 1e300, "x"),
        (1.0, -2.0, "x"),
    ],
)
def test_marks_without_a_place_in_time_are_left_out_and_counted(mark):
    sound = (3.0, np.nan, "a", ()), (-1.0, 2.0, "b", ())
    found = sort_marks([(*mark, ()), *sound])
    assert found.events == (
        Event(onset_s=-1.0, duration_s=2.0, label="b"),
        Event(onset_s=3.0, duration_s=0.0, label="a"),
    )
    assert found.notes[0].startswith("1 annotations have no place in time")


def test_marks_of_channels_and_of_letters_that_are_none():
    found = sort_marks([(1, 2, "BAD", ("EEG T3-Ref",)), (1, 2, "a\udce9b", ())])
    assert found.bad_spans == (
        Span(onset_s=1.0, duration_s=2.0, reason="BAD", channels=("T7",)),
    )
    assert found.events[0].label == "a?b"


def test_a_dimension_that_is_no_voltage_is_no_eeg_whatever_the_option_says(tmp_path):
    names, dims = ("Fp1", "Fp2", "EtCO2", "Battery"), ("uV", "uV", "mmHg", "%")
    path = write_edf(tmp_path / "a.edf", noise(), names, dimension=dims)
    for options in ({}, {"units": "uV"}):
        recording = read_recording(path, **options)
        assert recording.kinds == ("eeg", "eeg", "misc", "misc")
        assert recording.units == ("uV", "uV", "n/a", "n/a")
        assert preprocess(recording, DataConfig()).channels == ("Fp1", "Fp2")


@pytest.mark.parametrize(
    ("name", "dimension", "kind"),
    [
        ("O2", "%", "misc"),  # saturation, not the occipital electrode
        ("T1", "degC", "misc"),
        ("Sensor", "furlong", "misc"),
        ("Sensor", "", "misc"),
        ("SpO2", "uV", "misc"),
        ("Leg/L", "uV", "misc"),
        ("Mic", "mV", "misc"),
        ("EMG chin", "", "misc"),  # not EEG, so nobody asks for its unit
        ("EMG chin", "uV", "emg"),
        ("Sensor", "uV", "eeg"),
    ],
)
def test_what_a_channel_beside_eeg_is(tmp_path, name, dimension, kind):
    names, dims = ("Fp1", "Cz", name), ("uV", "uV", dimension)
    path = write_edf(tmp_path / "a.edf", noise(3), names, dimension=dims)
    assert read_recording(path).kinds == ("eeg", "eeg", kind)


def test_an_electrode_without_a_unit_is_still_asked_about(tmp_path):
    path = write_edf(tmp_path / "a.edf", noise(2), ("Fp1", "Cz"), dimension=["uV", ""])
    with pytest.raises(InputError, match=r"channel Cz \(eeg\) states no unit"):
        read_recording(path)
    assert read_recording(path, units="uV").kinds == ("eeg", "eeg")


OTHERS = """
EtCO2 TcCO2 CO2 Battery Thorax Abdomen Chest Belt Effort Resp Airflow Nasal Snore Mic
Microphone Sound SpO2 SaO2 Pulse Temp Position Legs LLEG LAT DC1 Photic Trigger Status
Accelerometer Impedance
"""
ELECTRODES = "PO2 POz O2 C3 T1 P3-O1 Oz AF3 X1 LA1 IC1 TP7 TPP9h"


@pytest.mark.parametrize("name", OTHERS.split())
def test_names_of_other_signals(name):
    assert channel_kinds([name], ["eeg"]) == ("misc",)


@pytest.mark.parametrize("name", ELECTRODES.split())
def test_names_that_only_look_like_those_of_other_signals(name):
    assert channel_kinds([name], ["eeg"]) == ("eeg",)
