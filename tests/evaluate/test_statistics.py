import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eegkd.evaluate.predictions import make_predictions
from eegkd.evaluate.statistics import (
    compare_all,
    holm,
    minimum_detectable_effect,
    paired_comparison,
    result_rows,
    sign_flip_p,
    summarise,
    t_interval,
)


def column(values):
    return np.asarray(values, float)[:, None]


def test_interval_and_p_match_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, (9, 5)), rng.normal(0, 1, (9, 3))
    want = stats.ttest_rel(a.mean(1), b.mean(1))
    low, high = want.confidence_interval()
    got = paired_comparison(a, b)
    np.testing.assert_allclose(
        [got.p_t, got.low, got.high], [want.pvalue, low, high], rtol=1e-9
    )
    assert got.mean_difference == pytest.approx((a.mean(1) - b.mean(1)).mean())
    assert t_interval(a.mean(1) - b.mean(1)) == pytest.approx((low, high))


def test_seeds_that_differ_show_where_units_agree():
    """Two of four seeds fail, for every unit alike: p is small, the error is not."""
    base = np.linspace(0.6, 0.8, 12)[:, None]
    student = base + np.array([0.1, 0.1, -0.3, -0.3])
    got = paired_comparison(student, base)
    assert got.verdict == "worse"
    want = np.std([0.1, 0.1, -0.3, -0.3], ddof=1) / 2
    assert got.seed_error == pytest.approx(want) == pytest.approx(0.1155, abs=1e-4)
    both = paired_comparison(student, base + np.array([0.0, 0.2]))
    assert both.seed_error == pytest.approx(np.hypot(want, 0.1))
    assert np.isnan(paired_comparison(base, base).seed_error)
    gone = np.full((2, 3), np.nan)
    assert np.isnan(paired_comparison(gone, gone).seed_error)
    gaps = paired_comparison(
        np.vstack([student, gone[:, :1] * np.ones(4)]),
        np.vstack([base, [[0.1], [0.2]]]),
    )
    assert gaps.seed_error == pytest.approx(want)


def test_the_error_over_seeds_is_that_of_other_seeds():
    rng = np.random.default_rng(0)
    units = rng.normal(0.7, 0.1, (10, 1))
    draws = [
        paired_comparison(
            units + rng.normal(0, 0.05, 5), units + rng.normal(0, 0.02, 3)
        )
        for _ in range(2000)
    ]
    spread = np.std([draw.mean_difference for draw in draws])
    typical = np.sqrt(np.mean([draw.seed_error**2 for draw in draws]))
    assert typical == pytest.approx(spread, rel=0.05)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_sign_flip_matches_enumeration(values):
    d = np.array(values, float)
    sums = [
        abs(np.dot(signs, d)) for signs in itertools.product([-1, 1], repeat=len(d))
    ]
    want = np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)
    assert sign_flip_p(d) == pytest.approx(want)


def test_sign_flip_ties_survive_rounding_and_sampling_agrees():
    assert sign_flip_p(np.full(5, 0.1)) == 2 / 2**5  # five seeds cannot go below 0.0625
    d = np.random.default_rng(1).normal(0.4, 1, 21)
    sampled, again = sign_flip_p(d), sign_flip_p(d)
    assert sampled == again
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(d.sum()) - 1e-9)
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact / 1e5))


def test_holm_by_hand():
    np.testing.assert_allclose(
        holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]
    )
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    assert holm([]).shape == (0,)


def test_detectable_effects_of_small_sets():
    assert minimum_detectable_effect(0.10, 14) == pytest.approx(0.0810, abs=5e-5)
    # 11.4 points by (t_0.975 + t_0.8) sd / sqrt(n), which drops the noncentrality.
    assert minimum_detectable_effect(0.08, 6) == pytest.approx(0.1148, abs=5e-5)
    assert np.isnan(minimum_detectable_effect(0.1, 1))


@pytest.mark.parametrize("n", [2, 6, 14, 40])
def test_detectable_effect_has_the_stated_power(n):
    rng = np.random.default_rng(n)
    d = rng.normal(minimum_detectable_effect(2.0, n), 2.0, (20_000, n))
    power = np.mean(stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(0.8, abs=0.012)


def test_size_under_the_null_is_five_percent():
    rng = np.random.default_rng(5)
    student, other = rng.normal(size=(2, 1000, 8, 2))
    verdicts = [
        paired_comparison(s, o).verdict for s, o in zip(student, other, strict=True)
    ]
    assert 0.03 < np.mean([v != "undetectable" for v in verdicts]) < 0.07


@pytest.mark.parametrize(
    ("differences", "verdict", "p"),
    [
        (np.zeros(8), "undetectable", 1.0),
        (np.full(8, 0.1), "better", 2 / 2**8),
        (np.full(8, -0.1), "worse", 2 / 2**8),
        (np.full(4, 0.1), "undetectable", 2 / 2**4),
        ([0.5], "undetectable", 1.0),
        ([np.nan, np.nan], "undetectable", 1.0),
    ],
)
def test_degenerate_differences(differences, verdict, p):
    base = np.linspace(0.5, 0.8, len(differences))
    got = paired_comparison(column(base + differences), column(base))
    assert (got.verdict, got.p_t) == (verdict, pytest.approx(p))


def test_undefined_units_are_left_out_and_counted():
    got = paired_comparison(
        column([0.9, np.nan, 0.8, 0.7]), column([0.5, 0.1, 0.5, 0.2])
    )
    want = paired_comparison(column([0.9, 0.8, 0.7]), column([0.5, 0.5, 0.2]))
    assert (got.n, got.num_excluded, got.p_t) == (3, 1, want.p_t)
    with pytest.raises(ValueError, match=r"\(3, 1\), \(2, 1\)"):
        paired_comparison(column([1, 2, 3]), column([1, 2]))


def test_verdicts_are_adjusted_over_the_table():
    rng = np.random.default_rng(3)
    base = rng.normal(0.7, 0.05, 10)
    student = {str(i): np.array([v]) for i, v in enumerate(base)}

    def behind(gap, spread, seed):
        noise = np.random.default_rng(seed).normal(size=10)
        noise = spread * (noise - noise.mean()) / noise.std(ddof=1)
        return {k: v - gap - noise[i] for i, (k, v) in enumerate(student.items())}

    # With 9 degrees of freedom t = 2.6 has p = 0.029.
    others = {
        "weak": behind(0.2, 0.01, 0),
        "near": behind(2.6 * 0.02 / np.sqrt(10), 0.02, 1),
    }
    others |= {f"same_{i}": behind(0.0, 0.02, 2 + i) for i in range(3)}
    alone = compare_all(student, {"near": others["near"]})["near"]
    found = compare_all(student, others)
    assert alone.verdict == "better"
    assert found["near"].verdict == "undetectable"
    assert found["near"].p_t == alone.p_t < 0.05 < found["near"].p_adjusted
    assert found["weak"].verdict == "better"
    with pytest.raises(ValueError, match="differ in units"):
        compare_all(student, {"odd": {"0": np.zeros(1)}})


def fake_run(gain, seed, subjects=10, windows=40):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, subjects * windows)
    z = gain * (2 * label - 1) + rng.normal(size=len(label))
    p = 1 / (1 + np.exp(-2 * z))
    names = np.repeat([f"s{i}" for i in range(subjects)], windows)
    return make_predictions(np.stack([1 - p, p], 1), label, names)


def test_rows_of_results():
    gains = {"teacher": 1.2, "student": 0.9, "no_teacher": 0.3, "linear": 0.3}
    runs = {
        name: [fake_run(gain, 10 * i + s) for s in range(1 if i == 3 else 3)]
        for i, (name, gain) in enumerate(gains.items())
    }
    rows, comparisons = summarise(runs, ["accuracy", "auroc"])
    assert rows == result_rows(runs, ["accuracy", "auroc"])
    assert len(json.loads(json.dumps(rows, allow_nan=False))) == 8
    table = {(row["model"], row["metric"]): row for row in rows}
    assert table["student", "auroc"]["verdict"] == "better"
    assert table["teacher", "auroc"]["verdict"] == "worse"
    assert table["no_teacher", "accuracy"]["verdict"] == "better"
    assert table["linear", "auroc"]["seeds"] == 1
    for row in rows:
        assert row["low"] < row["mean"] < row["high"]
        assert row["n_subjects"] == 10
    assert set(comparisons["auroc"]) == {"teacher", "no_teacher", "linear"}
    student = comparisons["accuracy"]["no_teacher"]
    gap = [table[m, "accuracy"]["mean"] for m in ("student", "no_teacher")]
    assert student.mean_difference == pytest.approx(gap[0] - gap[1])


def test_rows_without_a_reference_or_a_defined_unit():
    run = fake_run(0.5, 0, subjects=2)
    one_class = run._replace(label=(run.subject == "s0").astype(np.int32))
    rows = result_rows({"student": [one_class]}, ["auroc", "accuracy"])
    assert rows[0]["mean"] is rows[0]["low"] is rows[0]["verdict"] is None
    assert (rows[0]["n_subjects"], rows[0]["num_excluded"]) == (0, 2)
    assert rows[0]["pooled"] is not None
    assert rows[1]["n_subjects"] == 2
    with pytest.raises(ValueError, match="No 'student'"):
        result_rows({"teacher": [run]}, ["auroc"])
