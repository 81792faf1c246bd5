import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.data.corpora import UNLABELLED, not_asked
from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.windows.cutting import cut_trials, cut_windows, zscore_windows
from eegkd.errors import InputError

CLASSES = ("background", "focal", "generalised")


def event(onset, duration, label="focal"):
    return Event(onset_s=onset, duration_s=duration, label=label)


def toy_recording(duration_s=60.0, rate=50.0, events=(), signal=None):
    if signal is None:
        signal = np.random.default_rng(0).normal(size=(2, round(duration_s * rate)))
    return Recording(
        signal=signal.astype(np.float32),
        channels=("C3", "C4"),
        kinds=("eeg", "eeg"),
        units=("uV", "uV"),
        rate=rate,
        events=tuple(events),
        source="toy.edf",
    )


def cut(recording, **changes):
    options = {
        "window_s": 4.0,
        "overlap": 0.0,
        "classes": CLASSES,
        "background": "background",
        "positive_fraction": 0.5,
    }
    return cut_windows(recording, **(options | changes))


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([50.0, 128.0, 173.61]),
    window_s=st.floats(0.3, 7.0),
    overlap=st.floats(0.0, 0.95),
)
def test_every_window_is_the_slice_at_its_start(rate, window_s, overlap):
    recording = toy_recording(20.0, rate)
    windows = cut(recording, window_s=window_s, overlap=overlap)
    length = round(window_s * rate)
    first = np.rint(windows.start_s * rate).astype(int)
    for i in np.linspace(0, len(first) - 1, 7).astype(int):
        want = recording.signal[:, first[i] : first[i] + length]
        np.testing.assert_array_equal(windows.signal[i], want)
    assert np.all(np.diff(first) > 0)
    grid = np.arange(0, recording.signal.shape[1] - length + 1, length)
    np.testing.assert_array_equal(first[windows.on_grid], grid)


def test_the_overlapping_hop_adds_windows_and_leaves_the_grid_alone():
    plain, half = cut(toy_recording()), cut(toy_recording(), overlap=0.5)
    assert len(plain.start_s) == 15
    assert len(half.start_s) == 29
    np.testing.assert_array_equal(half.start_s, np.arange(29) * 2.0)
    np.testing.assert_array_equal(half.signal[half.on_grid], plain.signal)
    uneven = cut(toy_recording(), overlap=0.3)
    np.testing.assert_array_equal(uneven.signal[uneven.on_grid], plain.signal)


def test_starts_do_not_drift_over_a_day():
    signal = np.zeros((2, 24 * 3600 * 10), np.float32)
    windows = cut(toy_recording(rate=10.0, signal=signal), window_s=0.3)
    index = np.arange(len(windows.start_s))
    np.testing.assert_array_equal(windows.start_s, index * 3 / 10.0)
    assert windows.on_grid.all()


def oracle_labels(recording, length, starts, background, fraction):
    """Counts, sample by sample, what lies in a window."""
    labels = []
    for start in starts:
        cover = []
        for name in (UNLABELLED, *CLASSES):
            inside = set()
            for e in recording.events:
                if e.label == name:
                    first = round(e.onset_s * recording.rate)
                    stop = round((e.onset_s + e.duration_s) * recording.rate)
                    inside |= set(range(first, stop))
            cover.append(len(inside & set(range(start, start + length))))
        most = max(cover)
        best = max(i for i, size in enumerate(cover) if size == most)
        labels.append(best - 1 if most >= fraction * length else background)
    return np.array(labels)


events = st.builds(
    event,
    st.floats(-2, 32),
    st.floats(0, 15),
    st.sampled_from((UNLABELLED, *CLASSES)),
)


@settings(max_examples=60, deadline=None)
@given(
    found=st.lists(events, max_size=5),
    overlap=st.sampled_from([0.0, 0.5, 0.75]),
    fraction=st.sampled_from([0.1, 0.5, 1.0]),
    background=st.sampled_from(["background", None]),
)
def test_labels_equal_a_count_of_samples(found, overlap, fraction, background):
    recording = toy_recording(30.0, 20.0, found)
    windows = cut(
        recording, overlap=overlap, positive_fraction=fraction, background=background
    )
    starts = np.rint(windows.start_s * 20).astype(int)
    other = -1 if background is None else 0
    want = oracle_labels(recording, 80, starts, other, fraction)
    np.testing.assert_array_equal(windows.label, want)


def test_a_seizure_longer_than_many_windows_makes_them_all_positive():
    windows = cut(toy_recording(events=[event(8.0, 40.0)]))
    np.testing.assert_array_equal(windows.label, [0, 0] + [1] * 10 + [0] * 3)


def test_half_a_window_is_enough_and_a_sample_less_is_not():
    assert cut(toy_recording(events=[event(2.0, 2.0)])).label[0] == 1
    assert cut(toy_recording(events=[event(2.02, 1.98)])).label[0] == 0
    touching = [event(0.5, 1.0), event(1.5, 0.5), event(1.0, 1.5)]
    assert cut(toy_recording(events=touching)).label[0] == 1
    twice = [event(0.0, 1.0), event(0.0, 1.0)]
    assert cut(toy_recording(events=twice)).label[0] == 0


def test_ties_and_competing_classes():
    tie = [event(0.0, 2.0, "generalised"), event(2.0, 2.0, "focal")]
    assert cut(toy_recording(events=tie)).label[0] == 2
    more = [event(0.0, 1.5, "generalised"), event(1.5, 2.5, "focal")]
    assert cut(toy_recording(events=more)).label[0] == 1


def test_what_nobody_judged_is_unlabelled_not_background():
    found = [event(8.0, 8.0, UNLABELLED)]
    np.testing.assert_array_equal(
        cut(toy_recording(events=found)).label[:5], [0, 0, -1, -1, 0]
    )


def test_bad_input_names_the_recording():
    short = r"toy\.edf: no window of 90 s fits into 60 s\. Lower --data\.window_s"
    with pytest.raises(InputError, match=short):
        cut(toy_recording(), window_s=90.0)
    with pytest.raises(InputError, match=r"toy\.edf: event 'sz' at 3 s is none of"):
        cut(toy_recording(events=[event(3.0, 1.0, "sz")]))
    with pytest.raises(InputError, match="overlap must be"):
        cut(toy_recording(), overlap=1.0)
    with pytest.raises(InputError, match="positive_fraction must be"):
        cut(toy_recording(), positive_fraction=0.0)


def test_zscore_of_a_window_equals_numpy_and_ignores_offset_and_scale():
    recording = toy_recording()
    windows = cut(recording, overlap=0.5)
    scored = zscore_windows(windows, recording).signal
    x = windows.signal.astype(np.float64)
    want = (x - x.mean(axis=2, keepdims=True)) / x.std(axis=2, keepdims=True)
    np.testing.assert_allclose(scored, want, rtol=1e-4, atol=1e-6)
    moved = toy_recording(signal=recording.signal * 50 + 300)
    again = zscore_windows(cut(moved, overlap=0.5), moved).signal
    np.testing.assert_allclose(again, want, atol=2e-4)


@pytest.mark.parametrize("residue", [0.0, 1e-9])
def test_a_flat_stretch_is_an_error_unless_it_was_masked(residue):
    signal = np.random.default_rng(0).normal(size=(2, 3000)) * 30
    signal[1, 400:600] = residue * np.random.default_rng(1).normal(size=200)
    recording = toy_recording(signal=signal)
    with pytest.raises(InputError, match=r"toy\.edf: channel C4 is flat .* 8 s"):
        zscore_windows(cut(recording), recording)
    signal[1] = 0
    recording = dataclasses.replace(toy_recording(signal=signal), filled=("C4",))
    scored = zscore_windows(cut(recording), recording).signal
    assert not scored[:, 1].any()
    np.testing.assert_allclose(scored[:, 0].std(axis=1), 1, rtol=1e-5)


def test_a_window_has_every_class_that_covers_enough_of_it():
    events = (
        event(0, 10, "focal"),
        event(6, 6, "generalised"),
        event(6, 1, "generalised"),
        event(16, 4, UNLABELLED),
        event(18, 2, "focal"),
        event(20, 4, not_asked("focal")),
        event(20, 4, "generalised"),
    )
    classes = ("focal", "generalised")
    recording = toy_recording(28.0, events=events)
    found = cut(recording, classes=classes, background=None, multilabel=True)
    want = [[1, 0], [1, 1], [1, 1], [0, 0], [1, -1], [-1, 1], [0, 0]]
    assert found.label.tolist() == want
    strict = cut(
        recording, classes=classes, background=None, multilabel=True,
        positive_fraction=0.6,
    )  # fmt: skip
    assert strict.label.tolist()[1:3] == [[1, 0], [0, 1]]
    assert strict.label.tolist()[4] == [-1, -1]
    first = trials(recording, 4.0, classes=classes, multilabel=True)
    assert first.label.tolist()[0] == [1, 0]
    with pytest.raises(InputError, match="none of the classes focal"):
        cut(recording, classes=("focal",), background=None, multilabel=True)


def trials(recording, window_s, **changes):
    options = {"classes": CLASSES, "positive_fraction": 0.5}
    return cut_trials(recording, window_s=window_s, **(options | changes))


def test_a_trial_is_one_window_from_its_onset_on():
    events = (
        event(7.5, 3, "generalised"),
        event(2.26, 3),
        event(15, 1.4),
        event(18, 3),
        event(40, 3, UNLABELLED),
    )
    recording = toy_recording(20.0, events=events)
    windows = trials(recording, 3.0)
    # The one at 18 s is cut off; the one at 15 s fills less than half of its window.
    assert windows.start_s.tolist() == [2.26, 7.5, 15.0]
    assert windows.label.tolist() == [1, 2, -1]
    assert windows.on_grid.all()
    for row, first in enumerate((113, 375, 750)):
        want = recording.signal[:, first : first + 150]
        np.testing.assert_array_equal(windows.signal[row], want)


def test_a_trial_has_the_class_of_its_own_event_whatever_begins_inside_it():
    # One every half second: the neighbours of a window cover all of it together.
    kinds = ("focal", "generalised", "focal", "generalised", "generalised")
    events = tuple(event(2 + i / 2, 2, kind) for i, kind in enumerate(kinds))
    windows = trials(toy_recording(20.0, events=events), 2.0)
    assert windows.start_s.tolist() == [2, 2.5, 3, 3.5, 4]
    assert windows.label.tolist() == [1, 2, 1, 2, 2]


def test_a_recording_without_whole_trials_is_refused():
    recording = toy_recording(20.0, events=(event(18, 3),))
    with pytest.raises(InputError, match=r"toy\.edf: none of its 1 trials"):
        trials(recording, 3.0)
    with pytest.raises(InputError, match="none of its 0 trials"):
        trials(toy_recording(20.0), 3.0)
    with pytest.raises(InputError, match="none of the classes"):
        trials(toy_recording(20.0, events=(event(1, 3, "blink"),)), 3.0)
