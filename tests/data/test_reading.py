import subprocess
import sys

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegkd.data import read_recording
from eegkd.data.recordings.names import canonical_name, canonical_names, channel_kinds
from tests.support.edf import write_edf
from tests.support.real import real


def noise(channels=3, seconds=4, rate=100, seed=0):
    return 30 * np.random.default_rng(seed).normal(size=(channels, seconds * rate))


def test_importing_the_reader_loads_neither_mne_nor_jax():
    code = (
        "import sys, eegkd.data; "
        "print([m for m in ('mne', 'wfdb', 'jax', 'scipy') if m in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_reads_the_microvolts_that_were_written(tmp_path):
    signal = noise()
    path = write_edf(tmp_path / "a.edf", signal, ["EEG Fp1-Ref", "T3", "ECG"])
    recording = read_recording(path)
    assert recording.signal.dtype == np.float32
    assert recording.channels == ("Fp1", "T7", "ECG")
    assert recording.kinds == ("eeg", "eeg", "ecg")
    assert recording.units == ("uV", "uV", "mV")
    assert recording.rate == 100
    assert recording.source == str(path)
    step = 3276.7 / 32767
    np.testing.assert_allclose(recording.signal[:2], signal[:2], atol=step)
    np.testing.assert_allclose(recording.signal[2], signal[2] / 1000, atol=step / 1000)


@pytest.mark.parametrize(
    ("dimension", "microvolts"),
    [("uV", 1), ("UV", 1), ("\u00b5V", 1), ("mV", 1e3), ("V", 1e6), ("nV", 1e-3)],
)
def test_takes_the_unit_that_the_header_states(tmp_path, dimension, microvolts):
    signal = noise(1) / microvolts
    limit = max(1, 500 / microvolts) if microvolts < 1e6 else 1e-3
    path = tmp_path / "a.edf"
    write_edf(path, signal, ["Cz"], dimension=dimension, physical_max=limit)
    got = read_recording(path).signal
    np.testing.assert_allclose(got, signal * microvolts, atol=limit * microvolts / 3e4)


def test_units_overrides_the_header_for_eeg_and_fills_what_is_not_stated(tmp_path):
    signal = noise(2) / 1e6
    path = write_edf(
        tmp_path / "a.edf", signal, ["Cz", "ECG"], dimension=["", ""], physical_max=1e-3
    )
    recording = read_recording(path, units="V")
    np.testing.assert_allclose(recording.signal[0], signal[0] * 1e6, atol=0.1)
    np.testing.assert_allclose(recording.signal[1], signal[1] * 1e3, atol=1e-4)
    wrong = write_edf(tmp_path / "b.edf", signal, ["Cz", "Pz"], physical_max=1e-3)
    np.testing.assert_allclose(
        read_recording(wrong, units="V").signal, signal * 1e6, atol=0.1
    )


def test_channels_that_are_no_voltage_keep_their_numbers(tmp_path):
    signal = noise(2)
    path = write_edf(tmp_path / "a.edf", signal, ["Cz", "SpO2"], dimension=["uV", "%"])
    recording = read_recording(path)
    assert recording.kinds == ("eeg", "misc")
    assert recording.units == ("uV", "n/a")
    np.testing.assert_allclose(recording.signal[1], signal[1], atol=0.1)


def test_slower_channels_come_at_the_highest_rate(tmp_path):
    signal = noise(2)
    signal[1] = np.repeat([10.0, 20, 30, 40], 100)
    path = write_edf(
        tmp_path / "a.edf",
        signal,
        ["Cz", "SpO2"],
        dimension=["uV", "%"],
        slower={"SpO2": 50},
    )
    recording = read_recording(path)
    assert recording.signal.shape == (2, 400)
    np.testing.assert_allclose(recording.signal[0], signal[0], atol=0.1)
    np.testing.assert_allclose(recording.signal[1, ::50], signal[1, ::50], atol=0.2)


def test_brainvision_by_any_of_its_three_files(tmp_path):
    (tmp_path / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        "DataFile=a.eeg\nMarkerFile=a.vmrk\nDataFormat=BINARY\n"
        "DataOrientation=MULTIPLEXED\nNumberOfChannels=2\nSamplingInterval=10000\n"
        "[Binary Infos]\nBinaryFormat=IEEE_FLOAT_32\n[Channel Infos]\n"
        "Ch1=FZ,,0.5,\u00b5V\nCh2=CZ,,0.001,mV\n",
        "utf-8",
    )
    (tmp_path / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
        "DataFile=a.eeg\n[Marker Infos]\nMk1=Stimulus,S  7,101,1,0\n"
    )
    signal = noise(2)
    signal.T.astype("<f4").tofile(tmp_path / "a.eeg")
    for suffix in ("vhdr", "eeg", "vmrk"):
        recording = read_recording(tmp_path / f"a.{suffix}")
        assert recording.channels == ("Fz", "Cz")
        want = signal * [[0.5], [1.0]]
        np.testing.assert_allclose(recording.signal, want, rtol=1e-4)
        (event,) = recording.events
        assert (event.onset_s, event.label) == (1.0, "Stimulus/S  7")


def test_annotations_become_events_in_time_order(tmp_path):
    marks = [(2.5, 1.0, "seizure"), (0.5, 0.0, "Augen zu: \u00e4")]
    path = write_edf(tmp_path / "a.edf", noise(), ["F3", "F4", "Cz"], annotations=marks)
    events = read_recording(path).events
    assert [(e.onset_s, e.duration_s, e.label) for e in events] == [marks[1], marks[0]]


def test_subject_and_session_come_from_bids_words(tmp_path):
    folder = tmp_path / "sub-07" / "ses-b"
    folder.mkdir(parents=True)
    write_edf(folder / "sub-07_ses-b_task-rest_eeg.edf", noise(1), ["Cz"])
    recording = read_recording(folder / "sub-07_ses-b_task-rest_eeg.edf")
    assert (recording.subject, recording.session) == ("07", "b")


def test_fif_events_count_from_the_first_sample(tmp_path):
    info = mne.create_info(["Cz", "Pz"], 100, "eeg")
    raw = mne.io.RawArray(noise(2, 10) * 1e-6, info, first_samp=500, verbose="error")
    raw.set_meas_date(0)
    onset = mne.Annotations(7.0, 1.0, "x", orig_time=raw.info["meas_date"])
    raw.set_annotations(onset)
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    recording = read_recording(tmp_path / "a_raw.fif")
    (event,) = recording.events
    assert (event.onset_s, event.duration_s, event.label) == (2.0, 1.0, "x")
    np.testing.assert_allclose(recording.signal, noise(2, 10), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("EEG Fp1-Ref", "Fp1"),
        ("EEG FP1-LE", "Fp1"),
        ("FP1", "Fp1"),
        ("Fc5.", "FC5"),
        ("Fcz.", "FCz"),
        ("T3", "T7"),
        ("EEG T6-REF", "P8"),
        ("FZ", "Fz"),
        ("AFp3h", "AFp3h"),
        ("FP1-F7", "Fp1-F7"),
        ("T5-O1", "P7-O1"),
        ("EEG C3-A2", "C3-A2"),
        ("C3-CS2", "C3"),
        ("EEG EKG1-REF", "EKG1"),
        ("ECG ECG", "ECG"),
        ("avr", "aVR"),
        ("ii", "II"),
        ("EEG", "EEG"),
        ("EEG 001", "EEG 001"),
        ("SpO2", "SpO2"),
        ("POL X1", "POL X1"),
    ],
)
def test_canonical_name(name, canonical):
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical


@given(st.text(st.sampled_from("EeGg FfpCcz.-1237TtREFref"), max_size=16))
def test_a_canonical_name_is_its_own_canonical_name(name):
    once = canonical_name(name)
    assert canonical_name(once) == once


def test_equal_labels_keep_one_plain_name():
    names = ["T8-P8-0", "F3", "T8-P8-1", "T8-P8-2", "EEG-1"]
    got = canonical_names(names)
    assert got == ("T8-P8", "F3", "T8-P8-1", "T8-P8-2", "EEG-1")


def test_every_1005_electrode_keeps_its_name():
    known = mne.channels.get_builtin_montages()
    newest = next(x for x in ("colin27_1005", "standard_1005") if x in known)
    names = mne.channels.make_standard_montage(newest).ch_names
    old = {"T3", "T4", "T5", "T6"}
    assert [n for n in names if n not in old and canonical_name(n.upper()) != n] == []


def test_kinds_by_name():
    names = ("Cz", "ECG", "HEOG", "EMG chin", "Status", "V1", "C3-A2", "depth 3")
    want = ("eeg", "ecg", "eog", "emg", "misc", "eeg", "eeg", "misc")
    assert channel_kinds(names, ["eeg"] * 7 + ["misc"]) == want
    depth = ("ACC1", "TEMP2", "EEG 001", "--0", "12")
    assert channel_kinds(depth, ["eeg"] * 5) == ("eeg", "eeg", "eeg", "misc", "eeg")
    assert channel_kinds(("II", "V1"), ["eeg", "eeg"]) == ("ecg", "ecg")


@pytest.mark.parametrize(
    ("name", "shape", "rate", "kinds"),
    [
        ("eegmat/Subject00_1.edf", (21, 91000), 500, {"eeg": 20, "ecg": 1}),
        ("mi_eegmmidb/S001R04.edf", (64, 20000), 160, {"eeg": 64}),
        (
            "mi_eegmmidb/test_edf_overlapping_annotations.edf",
            (64, 15872),
            128,
            {"eeg": 64},
        ),
        ("formats/MB0400FU.EDF", (25, 5800), 200, {"eeg": 21, "misc": 4}),
        ("formats/test.edf", (16, 15360), 256, {"eeg": 16}),
        ("formats/test.bdf", (17, 15360), 256, {"eeg": 16, "misc": 1}),
        ("formats/test_bdf_stim_channel.bdf", (4, 5000), 500, {"eeg": 3, "misc": 1}),
        ("formats/test_1ch.gdf", (1, 4500), 150, {"ecg": 1}),
        ("formats/eeglab_data.set", (32, 30504), 128, {"eeg": 30, "eog": 2}),
        (
            "formats/sub-pt1_ses-02_task-monitor_acq-ecog_run-01_clip2.lay",
            (83, 847),
            200,
            {"eeg": 23, "ecg": 2, "misc": 58},
        ),
        ("formats/eeglab_data.fdt", (32, 30504), 128, {"eeg": 30, "eog": 2}),
        ("ecg_wfdb/100.hea", (2, 650000), 360, {"ecg": 2}),
        ("ecg_wfdb/s0010_re.hea", (15, 38400), 1000, {"ecg": 15}),
        ("ecg_wfdb/a103l.mat", (3, 82500), 250, {"ecg": 2, "misc": 1}),
        ("ecg_cpsc2018/A0001.hea", (12, 7500), 500, {"ecg": 12}),
    ],
)
def test_reads_real_files(name, shape, rate, kinds):
    recording = read_recording(real(*name.split("/")))
    assert recording.signal.shape == shape
    assert recording.rate == pytest.approx(rate, rel=1e-5)
    assert {k: recording.kinds.count(k) for k in set(recording.kinds)} == kinds
    assert len(set(recording.channels)) == len(recording.channels)
    eeg = [i for i, kind in enumerate(recording.kinds) if kind == "eeg"]
    if eeg:
        assert 1 < np.median(recording.signal[eeg].std(axis=1)) < 5000


def test_real_annotations_triggers_and_beats():
    motor = read_recording(real("mi_eegmmidb", "S001R04.edf"))
    assert {event.label for event in motor.events} == {"T0", "T1", "T2"}
    assert motor.events[1].onset_s == pytest.approx(4.2)
    utf8 = read_recording(real("formats", "test_utf8_annotations.edf"))
    assert utf8.events[1].label == "\u4ef0\u5367"
    status = read_recording(real("formats", "test_bdf_stim_channel.bdf"))
    assert {event.label for event in status.events} <= {"1", "2", "4"}
    beats = read_recording(real("ecg_wfdb", "100.hea"))
    assert sum(event.label == "N" for event in beats.events) == 2239
    patient = read_recording(
        real("formats", "sub-pt1_ses-02_task-monitor_acq-ecog_run-01_clip2.lay")
    )
    assert (patient.subject, patient.session) == ("pt1", "02")


def test_every_real_record_of_cpsc_and_eegmmidb():
    files = sorted(real("ecg_cpsc2018").glob("*.hea"))
    assert len(files) == 90
    for path in files:
        recording = read_recording(path)
        assert recording.units == ("mV",) * 12
        assert 0.01 < recording.signal.std() < 5
    for path in sorted(real("mi_eegmmidb").glob("S*.edf")):
        assert read_recording(path).channels[:2] == ("FC5", "FC3")
