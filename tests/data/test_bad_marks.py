"""What a file or a table marks as bad: channels that are missing, spans left out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from eegkd.data import DataConfig
from eegkd.data.corpora import Corpus, Source
from eegkd.data.recordings.montage import default_channels, pick_channels
from eegkd.data.recordings.preprocess import preprocess
from eegkd.data.recordings.recording import Event, Recording, Span
from eegkd.data.windows.cutting import cut_trials, window_recording
from eegkd.data.windows.prepare import make_part
from eegkd.errors import InputError

CHANNELS = ("Fp1", "Fp2", "F3", "F4", "C3", "Cz")
PLAIN = DataConfig(rate=100.0, band=(0.5, 40.0), window_s=4.0, policy="error")


def make(*, bad=(), spans=(), seconds=40, events=()):
    rng = np.random.default_rng(0)
    return Recording(
        signal=(30 * rng.normal(size=(6, 100 * seconds))).astype(np.float32),
        channels=CHANNELS,
        kinds=("eeg",) * 6,
        units=("uV",) * 6,
        rate=100.0,
        source="a.fif",
        bad_channels=tuple(bad),
        bad_spans=tuple(spans),
        events=events or (Event(onset_s=0, duration_s=seconds, label="rest"),),
    )


def labels(recording, **changes):
    config = dataclasses.replace(PLAIN, **changes)
    windows, _ = window_recording(recording, config, classes=("rest",))
    return windows.label.tolist(), {k: v.sum() for k, v in windows.left_out.items()}


@pytest.mark.parametrize(
    ("onset", "duration", "left_out"),
    [
        (5.0, 1.0, [1]),
        (8.0, 4.0, [2]),
        (7.99, 4.02, [1, 2, 3]),
        (3.0, 20.0, [0, 1, 2, 3, 4, 5]),
        (12.0, 0.0, []),
        (13.0, 0.0, [3]),
        (39.9, 50.0, [9]),
        (90.0, 5.0, []),
    ],
)
def test_windows_that_a_span_touches_are_unlabelled(onset, duration, left_out):
    span = Span(onset_s=onset, duration_s=duration, reason="BAD muscle")
    got, counts = labels(make(spans=[span]))
    assert got == [-1 if i in left_out else 0 for i in range(10)]
    assert counts == ({"BAD muscle": len(left_out)} if left_out else {})


def test_a_span_holds_at_any_rate_and_for_rows_of_several_labels():
    span = Span(onset_s=8.0, duration_s=4.0, reason="BAD")
    windows, _ = window_recording(
        make(spans=[span]),
        dataclasses.replace(PLAIN, rate=128.0, overlap=0.5),
        classes=("rest", "task"),
        multilabel=True,
    )
    out = (windows.label == -1).all(axis=1)
    assert windows.start_s[out] == pytest.approx([6, 8, 10], abs=0.02)
    np.testing.assert_array_equal(windows.label[~out], [[1, 0]] * (~out).sum())


def test_a_trial_that_a_span_touches_is_unlabelled():
    trials = tuple(Event(onset_s=t, duration_s=4, label="rest") for t in (1, 7, 20))
    recording = make(spans=[Span(onset_s=9, duration_s=1, reason="BAD")], events=trials)
    windows = cut_trials(
        recording, window_s=4, classes=("rest",), positive_fraction=0.5
    )
    assert windows.label.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("channels", "montage", "policy", "counts"),
    [
        (("Fp1", "Cz"), "referential", "error", False),
        (("Cz", "F3"), "referential", "error", True),
        (("F3-C3",), "referential", "error", True),
        (("C3-Cz",), "referential", "error", False),
        (("Fp1", "Cz"), "average", "error", True),
        (("Fp1", "Pz"), "referential", "mask", False),
        (("Fp1", "Pz"), "referential", "interpolate", True),
    ],
)
def test_a_span_of_some_channels_counts_where_they_are_used(
    channels, montage, policy, counts
):
    span = Span(onset_s=8, duration_s=4, reason="BAD", channels=("F3", "F4"))
    got, _ = labels(
        make(spans=[span]), channels=channels, montage=montage, policy=policy
    )
    assert got == [-1 if counts and i == 2 else 0 for i in range(10)]


def test_a_bad_channel_is_left_out_where_none_is_asked_for():
    recording = make(bad=["Fp2"])
    assert default_channels(recording) == ("Fp1", "F3", "F4", "C3", "Cz")
    assert preprocess(recording, PLAIN).channels == ("Fp1", "F3", "F4", "C3", "Cz")
    average = preprocess(recording, dataclasses.replace(PLAIN, montage="average"))
    assert average.reference == ("Fp1", "F3", "F4", "C3", "Cz")


def test_a_bad_channel_that_is_asked_for_goes_by_the_policy():
    recording = make(bad=["Fp2"])
    with pytest.raises(InputError, match=r"missing channels Fp2 .*marked as bad: Fp2"):
        pick_channels(recording, ["Fp1", "FP2"])
    with pytest.raises(InputError, match="missing channels Fp2-F4"):
        pick_channels(recording, ["Fp2-F4"])
    masked, present = pick_channels(recording, ["Fp1", "Fp2"], "mask")
    assert present.tolist() == [True, False]
    assert not masked.signal[1].any()
    filled, _ = pick_channels(recording, ["Fp1", "Fp2"], "interpolate")
    others = dataclasses.replace(
        recording,
        signal=np.delete(recording.signal, 1, axis=0),
        channels=tuple(np.delete(CHANNELS, 1)),
        kinds=("eeg",) * 5,
        units=("uV",) * 5,
        bad_channels=(),
    )
    want, _ = pick_channels(others, ["Fp1", "Fp2"], "interpolate")
    np.testing.assert_array_equal(filled.signal, want.signal)


def test_a_recording_of_bad_channels_alone_is_refused():
    recording = make(bad=CHANNELS)
    with pytest.raises(InputError, match=r"a\.fif: all 6 EEG channels are marked"):
        preprocess(recording, PLAIN)


def part_of(recording, tmp_path):
    file = tmp_path / "recording"
    file.write_bytes(b"")
    corpus = Corpus(
        name="toy",
        classes=("rest",),
        background=None,
        list_sources=lambda root: (),
        read=lambda source: recording,
        defaults={},
    )
    part = Path(tmp_path, "part.json")
    make_part(Source("a", file), corpus, PLAIN, part)
    return json.loads(part.read_text())


def test_marks_are_in_the_record_of_a_recording_only_where_there_are_any(tmp_path):
    sound = part_of(make(), tmp_path)
    assert {"bad_channels", "left_out"} & set(sound) == set()
    spans = [
        Span(onset_s=1, duration_s=1, reason="BAD"),
        Span(onset_s=2, duration_s=3, reason="EDGE"),
    ]
    marked = part_of(make(bad=["Fp2"], spans=spans), tmp_path)
    assert marked["bad_channels"] == ["Fp2"]
    assert marked["left_out"] == {"BAD": 1, "EDGE": 2}
