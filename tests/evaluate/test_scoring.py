import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timescoring.annotations import Annotation
from timescoring.scoring import EventScoring

from eegkd.evaluate.events import mask_to_spans
from eegkd.evaluate.scoring import (
    EventScores,
    detection_latency,
    pool,
    score_events,
    score_samples,
)
from tests.oracles import szcore

NONE = np.zeros((0, 2))
SEIZURE = np.array([[1000.0, 1060.0]])
nan = float("nan")


@pytest.mark.parametrize(
    ("detected", "tp", "fp", "sensitivity", "precision", "f1", "alarms"),
    [
        ([(1065, 1115)], 1, 0, 1, 1, 1, 0),
        ([(1125, 1145)], 0, 1, 0, 0, 0, 24),
        ([(1000, 1010), (1090, 1100)], 1, 0, 1, 1, 1, 0),
        ([(600, 1800)], 1, 3, 1, 0.25, 0.4, 72),
        ([(1119, 1130)], 1, 0, 1, 1, 1, 0),
        ([(1120, 1145)], 0, 1, 0, 0, 0, 24),
        ([(960, 971)], 1, 0, 1, 1, 1, 0),
        ([(950, 969)], 0, 1, 0, 0, 0, 24),
        ([(950, 970)], 0, 1, 0, 0, 0, 24),
        ([(1000, 1010), (1200, 1210)], 1, 1, 1, 0.5, 2 / 3, 24),
        ([(1050, 1060), (1135, 1145)], 1, 0, 1, 1, 1, 0),
        ([], 0, 0, 0, nan, 0, 0),
    ],
)
def test_published_cases(detected, tp, fp, sensitivity, precision, f1, alarms):
    got = score_events(SEIZURE, np.reshape(detected, (-1, 2)), 3600.0)
    assert (got.tp, got.fp, got.num_ref) == (tp, fp, 1)
    np.testing.assert_allclose(
        [got.sensitivity, got.precision, got.f1, got.fa_per_24h],
        [sensitivity, precision, f1, alarms],
    )


def test_without_merging_the_second_fragment_is_false():
    detected = np.array([[1050.0, 1060], [1135, 1145]])
    parameters = EventScoring.Parameters(minDurationBetweenEvents=0)
    got = score_events(SEIZURE, detected, 3600.0, parameters)
    assert (got.tp, got.fp, got.precision, got.fa_per_24h) == (1, 1, 0.5, 24)
    assert got.f1 == pytest.approx(2 / 3)


def test_undefined_scores_without_a_reference():
    alarm = score_events(NONE, np.array([[5.0, 50.0]]), 3600.0)
    assert math.isnan(alarm.sensitivity)
    assert (alarm.precision, alarm.f1, alarm.fa_per_24h) == (0, 0, 24)
    silent = score_events(NONE, NONE, 3600.0)
    assert all(map(math.isnan, (silent.sensitivity, silent.precision, silent.f1)))
    assert silent.fa_per_24h == 0


def test_samples_know_no_tolerance():
    got = score_samples(SEIZURE, np.array([[1065.0, 1115.0]]), 3600.0)
    assert (got.sensitivity, got.precision, got.num_ref, got.fp) == (0, 0, 60, 50)
    half = score_samples(SEIZURE, np.array([[1030.0, 1090.0]]), 3600.0)
    assert (half.sensitivity, half.precision, half.f1) == (0.5, 0.5, 0.5)


@st.composite
def masks(draw):
    """Events between 0.1 s and 20 min; gaps and lengths near the limits included."""
    size = draw(st.integers(1, 30000))
    lengths = st.sampled_from(
        [1, 9, 299, 301, 599, 600, 899, 900, 901, 2999, 3000, 3001]
    )
    mask, at, value = np.zeros(size, bool), 0, draw(st.booleans())
    while at < size:
        step = draw(st.one_of(lengths, st.integers(1, 12000)))
        mask[at : at + step] = value
        at, value = at + step, not value
    other = np.roll(mask, draw(st.integers(-1500, 1500)))
    return mask, other if draw(st.booleans()) else ~other


@settings(deadline=None, max_examples=60)
@given(masks())
def test_scores_equal_a_naive_restatement(pair):
    truth, detected = pair
    got = score_events(mask_to_spans(truth), mask_to_spans(detected), len(truth) / 10)
    assert (got.tp, got.fp, got.num_ref) == szcore.event_counts(truth, detected)
    assert got.seconds == len(truth) / 10


def test_an_event_inside_another_does_not_end_it():
    # What the published merge takes for 1000 to 1020 s, after which all is false.
    truth = np.array([[1000.0, 1200], [1010, 1020]])
    for order in ([0, 1], [1, 0]):
        got = score_events(truth[order], np.array([[1150.0, 1190]]), 3600.0)
        assert (got.tp, got.fp, got.num_ref) == (1, 0, 1)
    got = score_events(np.array([[1150.0, 1190]]), truth, 3600.0)
    assert (got.tp, got.fp, got.num_ref) == (1, 0, 1)
    assert score_samples(truth, NONE, 3600.0).num_ref == 200


LENGTHS = (1, 99, 100, 299, 300, 599, 600, 899, 900, 901, 2999, 3000, 3001, 6000)


def random_table(rng, duration):
    """Draws events in tenths of a second: apart, touching, overlapping and nested."""
    rows = []
    for _ in range(rng.integers(0, 9)):
        length = int(rng.choice([rng.choice(LENGTHS), rng.integers(1, 9000)]))
        start = int(rng.integers(-length, duration))
        if rows and rng.random() < 0.6:  # by an earlier one: inside it, or near its end
            onset, end = rows[rng.integers(len(rows))]
            gap = int(rng.choice([-900, -100, -1, 0, 1, 100, 899, 900, 901]))
            inside = int(rng.integers(onset, end))
            start = inside if rng.random() < 0.5 else end + gap
            length = int(rng.integers(1, 600)) if rng.random() < 0.5 else length
        rows.append((start, start + length))
    return np.array(rows, int).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_random_tables_equal_a_restatement_of_the_rules(seed):
    for case in range(100):
        rng = np.random.default_rng([seed, case])
        duration = int(rng.integers(3000, 36000))
        truth, found = (random_table(rng, duration) for _ in range(2))
        got = score_events(truth / 10, found / 10, duration / 10)
        want = szcore.table_counts(truth, found, duration)
        assert (got.tp, got.fp, got.num_ref) == want, (seed, case)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), min_size=2, max_size=120), st.integers(0, 10**6))
def test_scores_equal_timescoring_on_whole_seconds(blocks, seed):
    truth = np.repeat(blocks, 25 * 10)
    detected = np.repeat(np.random.default_rng(seed).random(len(blocks)) > 0.6, 250)
    want = EventScoring(Annotation(truth, 10), Annotation(detected, 10))
    got = score_events(mask_to_spans(truth), mask_to_spans(detected), len(truth) / 10)
    for ours, theirs in (
        ("sensitivity", "sensitivity"),
        ("precision", "precision"),
        ("f1", "f1"),
        ("fa_per_24h", "fpRate"),
    ):
        np.testing.assert_allclose(getattr(got, ours), getattr(want, theirs))


def test_a_length_at_the_limit_is_not_split_by_rounding():
    spans = np.array([[0.1, 300.1], [400.3, 700.3]])  # 300.1 - 0.1 > 300 in floats
    assert score_events(NONE, spans, 3600.0).fp == 2


def test_events_outside_the_recording_are_cut():
    got = score_events(np.array([[3590.0, 3700]]), np.array([[3595.0, 9999]]), 3600.0)
    assert (got.tp, got.fp) == (1, 0)
    with pytest.raises(ValueError, match="got 0"):
        score_events(NONE, NONE, 0.0)
    with pytest.raises(ValueError, match="at least 1 s"):
        score_samples(NONE, NONE, 0.3)


def test_pooling_adds_counts():
    got = pool([EventScores(1, 2, 3, 3600.0), EventScores(1, 0, 1, 7200.0)])
    assert got == EventScores(2, 2, 4, 10800.0)
    assert got.fa_per_24h == 16


def test_latency_of_hits_only():
    truth = np.array([[100.0, 160.0], [1000.0, 1060.0], [2000.0, 2010.0]])
    detected = np.array([[104.0, 120.0], [130.0, 150.0], [900.0, 1010.0]])
    np.testing.assert_allclose(detection_latency(truth, detected), [4.0, -30.0, nan])
    assert np.isnan(detection_latency(truth, NONE)).all()
