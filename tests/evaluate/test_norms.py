"""What training recordings are like, and which others are said to be unlike them."""

import json

import numpy as np
import pytest
from scipy import stats

from eegkd.evaluate.norms import (
    AMPLITUDE,
    LOUDEST,
    QUIETEST,
    Norms,
    compare,
    make_norms,
    window_values,
)
from eegkd.host.shapes import fit
from eegkd.pipeline.folder import to_json

RATE, BAND = 100.0, (0.5, 40.0)
FACTS = {"channels": ("C3", "C4"), "units": ("uV", "uV"), "passband": BAND}


def windows(rng, num=15, channels=3, scale=10.0):
    """White noise: its power lies in bands by their width."""
    return scale * rng.normal(size=(num, channels, 200))


def test_values_of_a_window_against_plain_numbers():
    rng = np.random.default_rng(0)
    times = np.arange(200) / RATE
    rows = [a * np.sin(2 * np.pi * 10 * times) for a in (2.0, 4.0, 12.0)]
    signal = np.stack(rows)[None].astype(np.float32)
    found = {
        k: np.exp(v[0]) for k, v in window_values(signal, RATE, BAND, None).items()
    }
    assert set(found) == {"0.5-4 Hz", "4-8 Hz", "8-13 Hz", "13-30 Hz", "30-40 Hz"}
    assert found["8-13 Hz"] > 0.98
    sized = window_values(signal, RATE, BAND, np.full((1, 3), 5.0))
    # The deviation of a sine is its amplitude by the root of two.
    np.testing.assert_allclose(np.exp(sized[AMPLITUDE]), 20 / np.sqrt(2), rtol=1e-5)
    np.testing.assert_allclose(np.exp(sized[LOUDEST]), 3.0, rtol=1e-5)
    np.testing.assert_allclose(np.exp(sized[QUIETEST]), 0.5, rtol=1e-5)
    noise = windows(rng, num=200).astype(np.float32)
    shares = window_values(noise, RATE, BAND, None)
    widths = {
        "0.5-4 Hz": 3.5,
        "4-8 Hz": 4,
        "8-13 Hz": 5,
        "13-30 Hz": 17,
        "30-40 Hz": 10,
    }
    for name, width in widths.items():
        share = np.exp(np.median(shares[name]))
        assert share == pytest.approx(width / 39.5, rel=0.2), name


def test_a_channel_without_a_signal_is_left_out_and_a_silent_window_too():
    rng = np.random.default_rng(1)
    signal = windows(rng, num=2).astype(np.float32)
    whole = window_values(signal[:, :2], RATE, BAND, np.ones((2, 2)))
    signal[:, 2] = 0
    found = window_values(signal, RATE, BAND, np.ones((2, 3)))
    for name, x in found.items():
        np.testing.assert_allclose(x, whole[name], rtol=1e-6, err_msg=name)
    signal[1] = 0
    silent = window_values(signal, RATE, BAND, np.ones((2, 3)))
    assert all(np.isnan(x[1]) and np.isfinite(x[0]) for x in silent.values())


def corpus(rng, people=30, per_person=2, num=10, between=0.3, within=0.2, seconds=300):
    """One value: recordings of people, each about the person's own mean."""
    person = np.repeat(np.arange(people), per_person)
    own = np.repeat(rng.normal(3, between, people), per_person)
    x = np.repeat(own, num) + rng.normal(0, within, people * per_person * num)
    codes = np.repeat(np.arange(len(person)), num)
    lengths = np.full(len(person), float(seconds))
    return {"amplitude": x}, codes, person, lengths


def asked(norms, value, seconds=300.0, rate=100.0, units=("uV", "uV")):
    values = {"amplitude": np.full(10, value)}
    return compare(norms, values, seconds=seconds, rate=rate, units=units)


def test_the_range_is_the_prediction_interval_of_people():
    values, codes, person, lengths = corpus(np.random.default_rng(2), within=1e-9)
    norms = make_norms(values, codes, person, lengths, rates=(100.0,), **FACTS)
    own = values["amplitude"][::20]  # Both recordings of a person are alike here.
    spread = np.hypot(own.std(ddof=1), 0.05)
    limit = stats.t.isf(0.005, 29) * np.sqrt(1 + 1 / 30)
    assert norms.values[0].mean == pytest.approx(own.mean())
    assert norms.values[0].spread == pytest.approx(spread)
    assert norms.limit == pytest.approx(limit)
    (_, _, found) = asked(norms, own.mean())
    edges = np.exp(own.mean() + np.array([-1, 1]) * limit * spread)
    np.testing.assert_allclose((found.low, found.high), edges, rtol=1e-9)
    for inside, away in ((True, 0.99), (False, 1.01)):
        for side in (-1, 1):
            value = own.mean() + side * away * limit * spread
            assert asked(norms, value)[-1].unlike is not inside


def test_one_in_a_hundred_is_called_unlike_and_few_people_are_no_norm():
    rng = np.random.default_rng(3)
    for people, most in ((4, 0.02), (20, 0.02), (100, 0.02)):
        warned = 0
        for _ in range(400):
            norms = make_norms(*corpus(rng, people), rates=(100.0,), **FACTS)
            fresh = np.median(rng.normal(3, 0.3) + rng.normal(0, 0.2, 10))
            warned += any(x.unlike for x in asked(norms, fresh))
        assert warned <= most * 400, people
    alone = make_norms(*corpus(rng, people=1), rates=(100.0,), **FACTS)
    assert alone.limit is None
    assert not any(x.unlike for x in asked(alone, 50.0))
    assert asked(alone, 3.0)[-1].low is None


def test_heavy_tails_widen_the_range_to_what_the_training_recordings_do():
    rng = np.random.default_rng(4)
    warned = 0
    for _ in range(200):
        values, codes, person, lengths = corpus(rng, 100, 1, within=1e-9, between=0)
        own = rng.standard_t(2, 100)
        values = {"amplitude": np.repeat(own, 10)}
        norms = make_norms(values, codes, person, lengths, rates=(100.0,), **FACTS)
        warned += asked(norms, rng.standard_t(2))[-1].unlike
    assert warned <= 10  # 2 in 100 are expected.


def test_a_short_recording_is_allowed_the_spread_of_windows():
    norms = make_norms(
        *corpus(np.random.default_rng(5), between=0.01, within=0.5),
        rates=(100.0,),
        **FACTS,
    )
    assert asked(norms, 4.0)[-1].unlike
    assert not asked(norms, 4.0, seconds=10.0)[-1].unlike
    assert asked(norms, 9.0, seconds=10.0)[-1].unlike


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (100.2, ""),
        (99.8, ""),
        (500.0, "rate 500 Hz, 5 times above 100"),
        (64.0, "rate 64 Hz, 1.6 times below 100"),
    ],
)
def test_the_rate_as_recorded_has_no_spread(rate, said):
    norms = make_norms(*corpus(np.random.default_rng(6)), rates=(100.0,), **FACTS)
    found = asked(norms, 3.0, rate=rate)[0]
    assert found.unlike is bool(said)
    assert not said or found.words == said


def test_rates_between_those_of_training_and_unknown_ones_are_no_news():
    data = corpus(np.random.default_rng(7))
    mixed = make_norms(*data, rates=(250.0, 512.0), **FACTS)
    assert not asked(mixed, 3.0, rate=500.0)[0].unlike
    assert (
        asked(mixed, 3.0, rate=1000.0)[0].words
        == "rate 1000 Hz, 2 times above 250 to 512"
    )
    unknown = make_norms(*data, **{**FACTS, "rates": (), "units": ()})
    assert [x.name for x in asked(unknown, 3.0, rate=7.0)] == ["amplitude"]


def test_channels_in_another_unit_are_named():
    norms = make_norms(*corpus(np.random.default_rng(8)), rates=(100.0,), **FACTS)
    found = asked(norms, 3.0, units=("uV", "mV"))[1]
    assert found.unlike
    assert found.words == "unit of C4 in mV, not uV"
    assert not asked(norms, 3.0)[1].unlike


def test_norms_come_back_from_json_as_they_were():
    norms = make_norms(*corpus(np.random.default_rng(9)), rates=(100.0,), **FACTS)
    assert fit(Norms, json.loads(json.dumps(to_json(norms)))) == norms


def test_a_person_of_many_recordings_counts_once():
    x = np.array([0.0] * 9 + [1.0])  # Nine recordings of one person, one of another.
    person = np.array([0] * 9 + [1])
    codes, lengths = np.arange(10), np.full(10, 60.0)
    norms = make_norms({"amplitude": x}, codes, person, lengths, rates=(), **FACTS)
    assert norms.values[0].mean == pytest.approx(0.5)
    assert norms.num_people == 2


def test_a_share_of_windows_below_is_given():
    data = corpus(np.random.default_rng(10))
    norms = make_norms(*data, rates=(100.0,), **FACTS)
    middle = np.median(data[0]["amplitude"])
    assert asked(norms, middle)[-1].below == pytest.approx(0.5, abs=0.01)
    assert asked(norms, 40.0)[-1].below == 1.0
