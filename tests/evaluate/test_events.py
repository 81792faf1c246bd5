import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.evaluate.events import (
    Detection,
    EventsConfig,
    WindowTrack,
    detect,
    fit_threshold,
    operating_curve,
    szcore_results,
    timeline,
    to_spans,
    window_tracks,
)
from eegkd.evaluate.predictions import make_predictions

NONE = np.zeros((0, 2))
SEIZURE = np.array([[1000.0, 1060.0]])
nan = float("nan")


def track(prob, *, window_s=4.0, hop=None, truth=NONE, duration=None, subject="1"):
    start = np.arange(len(prob)) * (hop or window_s)
    duration = duration or start[-1] + window_s
    return WindowTrack(start, np.array(prob), window_s, duration, truth, subject)


def test_timeline_averages_overlaps_and_knows_gaps():
    line = timeline(track([0.2, 0.6], window_s=2.0, hop=1.0, duration=4.0))
    want = np.repeat([0.2, 0.4, 0.6, np.nan], 10)
    np.testing.assert_allclose(line, want, atol=1e-12)
    odd = track([0.1, 0.2])._replace(start_s=np.array([4.0, 0.0]))
    with pytest.raises(ValueError, match="time order"):
        timeline(odd)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([3, 5, 7]),
)
def test_timeline_matches_a_loop(prob, hop, size):
    one = track(prob, window_s=4.0, hop=hop)
    padded = np.pad(prob, size // 2, mode="edge")
    smooth = [np.median(padded[i : i + size]) for i in range(len(prob))]
    want = np.full((len(prob), round(one.duration_s * 10)), np.nan)
    for i, value in enumerate(smooth):
        want[i, i * hop * 10 : i * hop * 10 + 40] = value
    np.testing.assert_allclose(
        timeline(one, smooth=size), np.nanmean(want, axis=0), atol=1e-9
    )


def test_the_median_goes_by_time_and_not_by_rows():
    prob = np.array([0.9, 0.9, 0.1, 0.2, 0.8, 0.3, 0.7, 0.6])
    start = np.array([0.0, 4, 8, 60, 64, 68, 200, 400])
    one = WindowTrack(start, prob, 4.0, 404.0, NONE)
    got = [timeline(one, smooth=3)[int(at * 10)] for at in start]
    np.testing.assert_allclose(got, [0.9, 0.9, 0.1, 0.2, 0.3, 0.3, 0.7, 0.6])
    # Far neighbours on one side are none; a missing one repeats the last before it.
    got = [timeline(one, smooth=5)[int(at * 10)] for at in start]
    np.testing.assert_allclose(got, [0.9, 0.9, 0.1, 0.2, 0.3, 0.3, 0.7, 0.6])
    hole = one._replace(start_s=np.array([0.0, 4, 8, 12, 20, 24, 28, 32]))
    got = [timeline(hole, smooth=5)[int(at * 10)] for at in hole.start_s]
    # The window at 12 s has 4, 8, itself, itself for the hole at 16, and 20.
    want = [np.median(prob[list(rows)]) for rows in (
        (0, 0, 0, 1, 2), (0, 0, 1, 2, 3), (0, 1, 2, 3, 3), (1, 2, 3, 3, 4),
        (3, 4, 4, 5, 6), (4, 4, 5, 6, 7), (4, 5, 6, 7, 7), (5, 6, 7, 7, 7),
    )]  # fmt: skip
    np.testing.assert_allclose(got, want)


def test_windows_on_both_sides_of_a_gap_do_not_smooth_each_other():
    prob = np.array([0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9])
    one = track(prob)
    loose = EventsConfig(min_duration_s=0.0)
    assert [(d.onset_s, d.duration_s) for d in detect(one, 0.5, loose)] == [(0, 28)]
    cut = one._replace(start_s=np.array([0.0, 4, 8, 12, 500, 504, 508]), duration_s=512)
    found = [(d.onset_s, d.duration_s) for d in detect(cut, 0.5, loose)]
    assert found == [(0, 12), (500, 12)]


def test_detection_smooths_and_drops_short_events():
    prob = [0.1, 0.9, 0.1, 0.1, 0.9, 0.7, 0.9, 0.1, 0.8, 0.8, 0.1, 0.1]
    found = detect(track(prob), 0.5)
    # The lone window vanishes; the dip at 28 s is filled; 16 to 40 s is one event.
    assert [(d.onset_s, d.duration_s) for d in found] == [(16.0, 24.0)]
    assert found[0].confidence == pytest.approx(np.mean([0.7, 0.9, 0.7, 0.8, 0.8, 0.8]))
    raw = detect(track(prob), 0.5, EventsConfig(smooth=1, min_duration_s=8.0))
    assert [(d.onset_s, d.duration_s) for d in raw] == [(16.0, 12.0), (32.0, 8.0)]
    assert detect(track(prob), 0.95) == ()
    assert len(detect(track([1.0] * 4, duration=30.0), 0.0)) == 1  # NaN is no event


@pytest.mark.parametrize(
    "bad", [{"smooth": 2}, {"smooth": 0}, {"min_duration_s": -1.0}]
)
def test_options_are_checked(bad):
    with pytest.raises(ValueError, match="must be"):
        EventsConfig(**bad)
    assert dataclasses.replace(EventsConfig(), threshold=0.3).threshold == 0.3


def test_threshold_is_fitted_on_events():
    prob = np.full(900, 0.2)
    prob[250:265] = 0.75  # the seizure, 1000 to 1060 s
    prob[500:510] = 0.55  # a look-alike
    one = track(prob, truth=SEIZURE)
    curve = {round(p.threshold, 2): p.scores for p in operating_curve([one])}
    assert (curve[0.75].tp, curve[0.75].fp) == (1, 0)
    assert (curve[0.5].tp, curve[0.5].fp) == (1, 1)
    assert (curve[0.8].tp, curve[0.8].fp) == (0, 0)
    assert curve[0.1].fp == 11
    assert fit_threshold([one]) == pytest.approx(0.6)
    quiet = track(np.full(900, 0.3))
    assert fit_threshold([quiet]) == pytest.approx(0.5)
    assert fit_threshold([track(np.full(900, 0.62))]) == pytest.approx(0.65)
    with pytest.raises(ValueError, match="No validation recording"):
        fit_threshold([])


def test_predictions_split_into_recordings():
    p = make_predictions(
        np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [1, 0, 0]]),
        [1, -1, 0],
        ["s1", "s1", "s2"],
        ["a", "a", "b"],
        [4.0, 0.0, 0.0],
    )
    a, b = window_tracks(
        p,
        window_s=4.0,
        durations={"a": 8.0, "b": 4.0},
        truths={"a": [(0.0, 2.0)]},
        event_classes=(1, 2),
    )
    np.testing.assert_allclose(a.prob, [0.5, 0.9], atol=1e-6)
    assert (a.subject, b.subject, b.truth.shape) == ("s1", "s2", (0, 2))


def test_results_are_means_over_subjects():
    hit = [Detection(1000.0, 60.0)]
    tracks = [
        track(np.zeros(900), truth=SEIZURE, subject="1"),
        track(np.zeros(900), truth=SEIZURE, subject="1"),
        track(np.zeros(900), truth=SEIZURE, subject="2"),
        track(np.zeros(900), subject="3"),
    ]
    got = szcore_results(tracks, [hit, [], hit, []])
    events = got["event_results"]
    assert (events["sensitivity"], events["sensitivity_std"]) == (0.75, 0.25)
    assert (events["precision"], events["fpRate"]) == (1.0, 0.0)
    assert got["sample_results"]["sensitivity"] == 0.75
    assert szcore_results(tracks[3:], [[]])["event_results"]["f1"] is None
    assert to_spans(hit).tolist() == SEIZURE.tolist()
