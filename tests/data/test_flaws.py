"""Stretches without a signal, found before any filter."""

import csv
import dataclasses

import numpy as np
import pytest

from eegkd.data import DataConfig
from eegkd.data.recordings.flaws import CLIPPED, FLAT, find_flaws
from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.windows.cutting import window_recording
from eegkd.data.windows.marks import describe_marks
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError
from tests.support.edf import write_edf

RATE = 100
NAMES = ("Fp1", "Cz", "O2")
PLAIN = DataConfig(rate=100.0, band=(0.5, 40.0), window_s=4.0)


def make(signal=None, rate=RATE, unit="uV"):
    if signal is None:
        signal = 30 * np.random.default_rng(0).normal(size=(3, 60 * rate))
    return Recording(
        signal=np.asarray(signal, np.float32),
        channels=NAMES,
        kinds=("eeg",) * 3,
        units=(unit,) * 3,
        rate=float(rate),
        events=(Event(onset_s=0, duration_s=60, label="rest"),),
        source="a.edf",
    )


def spans(recording, channels=NAMES):
    found = find_flaws(recording, channels)
    return [(s.reason, s.channels[0], s.onset_s, s.duration_s) for s in found]


def test_noise_has_no_flaw():
    assert spans(make()) == []
    assert spans(make(np.round(make().signal))) == []


@pytest.mark.parametrize("level", [0.0, -250.0])
@pytest.mark.parametrize(("start", "stop"), [(2000, 2800), (2013, 2113), (5713, 6000)])
def test_a_dead_stretch_is_found_to_the_sample(level, start, stop):
    recording = make()
    recording.signal[1, start:stop] = level
    (found,) = [s for s in spans(recording) if s[0] == FLAT]
    assert found[1:] == ("Cz", start / RATE, pytest.approx((stop - start) / RATE))


def test_less_than_a_second_is_no_dead_stretch():
    recording = make()
    recording.signal[1, 2000:2090] = 0
    assert spans(recording) == []


def test_the_last_digit_of_a_dead_amplifier_is_no_signal():
    recording = make()
    dither = 0.05 * np.random.default_rng(1).integers(0, 2, 800)
    recording.signal[0, 2000:2800] = dither
    (found,) = spans(recording)
    assert found[:2] == (FLAT, "Fp1")
    assert found[2:] == (pytest.approx(20, abs=0.02), pytest.approx(8, abs=0.04))


def test_the_drift_of_an_electrode_makes_no_signal_flat():
    recording = make()
    recording.signal[0] += np.linspace(0, 50_000, 6000)
    assert spans(recording) == []
    recording.signal[0, 2000:2800] = 16_700
    assert [s[:2] for s in spans(recording)] == [(FLAT, "Fp1")]


def test_a_stretch_at_the_rail_is_clipped_and_near_ones_are_one():
    recording = make()
    recording.signal[2] = np.clip(recording.signal[2], -200, 200)
    assert spans(recording) == []  # single samples at the limit
    recording.signal[2, 1000:1007] = 200
    recording.signal[2, 1050:1060] = 200
    recording.signal[2, 4000:4030] = -200
    recording.signal[2, 5990:6000] = 200
    got = spans(recording)
    assert got == [
        (CLIPPED, "O2", 10.0, pytest.approx(0.6)),
        (CLIPPED, "O2", 59.9, pytest.approx(0.1)),
        (CLIPPED, "O2", 40.0, pytest.approx(0.3)),
    ]


def test_only_channels_in_use_are_searched():
    recording = make()
    recording.signal[1, 2000:2800] = 0
    assert spans(recording, ["Fp1", "O2"]) == []
    config = dataclasses.replace(PLAIN, channels=("Fp1", "O2"))
    windows, _ = window_recording(recording, config, classes=("rest",))
    assert windows.left_out == {}
    pair = dataclasses.replace(PLAIN, channels=("Fp1-Cz",))
    windows, _ = window_recording(recording, pair, classes=("rest",))
    assert np.flatnonzero(windows.label == -1).tolist() == [5, 6]


@pytest.mark.parametrize("band", [(0.5, 40.0), (0.0, 0.0)])
def test_the_windows_of_a_dead_stretch_are_unlabelled(band):
    recording = make()
    recording.signal[:, 2000:2800] = 0
    config = dataclasses.replace(PLAIN, band=band)
    windows, _ = window_recording(recording, config, classes=("rest",))
    assert np.flatnonzero(windows.label == -1).tolist() == [5, 6]
    assert {k: int(v.sum()) for k, v in windows.left_out.items()} == {FLAT: 2}


def test_a_channel_that_is_dead_for_half_of_the_time_is_refused():
    recording = make()
    recording.signal[1, 3000:] = 0
    with pytest.raises(InputError, match=r"Cz is flat .*--data\.zscore recording"):
        window_recording(recording, PLAIN, classes=("rest",))
    config = dataclasses.replace(PLAIN, zscore="recording")
    windows, _ = window_recording(recording, config, classes=("rest",))
    assert windows.label.tolist() == [0] * 7 + [-1] * 8


def test_what_was_left_out_is_in_the_manifest_and_told(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    sound, dead = make().signal, make().signal.copy()
    dead[:, 2000:2800] = 0
    write_edf(folder / "a.edf", sound, NAMES)
    write_edf(folder / "b.edf", dead, NAMES)
    rows = [("file", "label"), ("a.edf", "rest"), ("b.edf", "task")]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    config = dataclasses.replace(PLAIN, corpus="folder", root=str(folder), workers=1)
    store = prepare(config, tmp_path / "store", progress=False)
    records = store.manifest["recordings"]
    assert "left_out" not in records["a.edf"]
    assert records["b.edf"]["left_out"] == {FLAT: 2}
    start = store.index["start_s"][store.recording_rows("b.edf")]
    label = store.labels[store.recording_rows("b.edf")]
    assert start[label == -1].tolist() == [20.0, 24.0]
    assert "layout" not in store.manifest["preprocessing"]
    told = list(describe_marks(records))
    assert told == [("left out: flat signal", "2 windows: b.edf (2)")]
