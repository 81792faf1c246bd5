import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eegkd.evaluate.families import holm_levels
from eegkd.evaluate.paired import detectable_effect
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


def test_levels_are_those_that_holm_compares_with():
    ps = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(holm_levels(ps), 0.05 / np.array([3, 1, 2, 4]))
    # A p-value at its level is just found, whatever the others.
    at = holm_levels(ps)
    np.testing.assert_allclose(holm(at.tolist()), 0.05)


def test_detectable_effects_of_small_sets():
    assert minimum_detectable_effect(0.10, 14) == pytest.approx(0.0810, abs=5e-5)
    # 11.4 points by (t_0.975 + t_0.8) sd / sqrt(n), which drops the noncentrality.
    assert minimum_detectable_effect(0.08, 6) == pytest.approx(0.1148, abs=5e-5)
    assert np.isnan(minimum_detectable_effect(0.1, 1))
    # Of infinite degrees of freedom: z.975 + z.80.
    assert detectable_effect(1.0, np.inf) == pytest.approx(1.959964 + 0.841621)
    strict = detectable_effect(1.0, 19, alpha=0.01)
    assert strict > detectable_effect(1.0, 19) > 2.8


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
        (np.full(6, 0.1), "better", 2 / 2**6),
        (np.full(5, 0.1), None, 2 / 2**5),
        ([0.1, 0.101], None, 0.0032),
        ([0.5], None, 1.0),
        ([np.nan, np.nan], None, 1.0),
    ],
)
def test_degenerate_differences(differences, verdict, p):
    base = np.linspace(0.5, 0.8, len(differences))
    got = paired_comparison(column(base + differences), column(base))
    assert (got.verdict, got.p_t) == (verdict, pytest.approx(p, abs=1e-4))
    assert ("too few units" in got.reason) == (verdict is None)


def test_too_few_units_are_shown_with_what_it_would_take():
    """[0.1, 0.101] was better by its t-test alone."""
    got = paired_comparison(column([0.6, 0.701]), column([0.5, 0.6]))
    assert got.verdict is None
    assert got.p_t < 0.05
    assert got.differences == pytest.approx((0.1, 0.101))
    assert "2, and a verdict needs 6; differences +0.1, +0.101" in got.reason
    wide = np.array([0.0, 0.1, 0.2, 0.02, 0.05])
    got = paired_comparison(column(0.5 + wide), column(np.full(5, 0.5)))
    effect = minimum_detectable_effect(wide.std(ddof=1), got.needed)
    less = minimum_detectable_effect(wide.std(ddof=1), got.needed - 1)
    assert effect <= wide.mean() < less
    assert got.needed > 6
    none = paired_comparison(column(wide[:3]), column(wide[:3]))
    assert (none.needed, none.mean_difference) == (6, 0)


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
        # All but the first metric is exploratory.
        assert row["exploratory"] == (row["metric"] == "auroc")
        assert (row["unit"], row["reason"]) == ("subject", None)
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
    assert rows[0]["verdict"] is None
    assert rows[0]["reason"] == "no comparison is registered"
    assert (rows[0]["unit"], rows[0]["n_subjects"]) == ("cohort", 2)
    assert rows[0]["pooled"] is not None
    assert (rows[1]["unit"], rows[1]["n_subjects"]) == ("subject", 2)
    # A fold without a second class defines nothing, and says so.
    folds = (one_class.subject == "s0").astype(int)
    runs = {"student": [one_class], "no_teacher": [one_class]}
    alone = result_rows(runs, ["auroc"], folds=folds)
    assert all(r["mean"] is r["low"] is r["verdict"] is None for r in alone)
    assert all("no fold's test subjects have two classes" in r["reason"] for r in alone)
    json.dumps(alone, allow_nan=False)
    with pytest.raises(ValueError, match="No 'student'"):
        result_rows({"teacher": [run]}, ["auroc"])


def by_name(summary):
    return {r["model"]: r for r in summary.rows if r["metric"] == "accuracy"}


def test_the_registered_comparison_needs_all_of_its_rows():
    runs = {
        "student": [fake_run(0.9, 1)],
        "no_teacher": [fake_run(0.3, 2)],
        "alpha_0": [fake_run(0.3, 3)],
        "small_net": [fake_run(0.35, 4)],
        "linear": [fake_run(0.3, 5)],
    }
    whole = summarise(runs, ["accuracy"])
    assert by_name(whole)["student"]["verdict"] == "better"
    found = whole.comparisons["accuracy"]
    assert [n for n, c in found.items() if c.registered] == ["no_teacher", "alpha_0"]
    # The registered are each at 5 %; Holm is over the others alone.
    for name in ("no_teacher", "alpha_0"):
        c = found[name]
        assert (c.level, c.p_adjusted) == (0.05, max(c.p_t, c.p_signflip))
    assert sorted(found[n].level for n in ("small_net", "linear")) == [0.025, 0.05]
    assert not any(row["exploratory"] for row in whole.rows)
    # One that is as good as the student: nothing is claimed, the rest is exploratory.
    equal = runs | {"alpha_0": runs["student"]}
    rows = by_name(summarise(equal, ["accuracy"]))
    assert rows["student"]["verdict"] == "undetectable"
    assert rows["no_teacher"]["verdict"] == "better"
    assert rows["linear"]["exploratory"]
    assert not rows["no_teacher"]["exploratory"]
    # One that beats the student: worse, whatever the other says.
    ahead = runs | {"alpha_0": [fake_run(2.5, 3)]}
    assert by_name(summarise(ahead, ["accuracy"]))["student"]["verdict"] == "worse"
    # One that is not there: no verdict, and why.
    given = {"registered": ("no_teacher", "skip"), "why_not": {"skip": "no such part"}}
    rows = by_name(summarise(runs, ["accuracy"], **given))
    assert rows["student"]["verdict"] is None
    assert rows["student"]["reason"] == "there is no skip: no such part"
    assert rows["no_teacher"]["verdict"] == "better"
    assert rows["alpha_0"]["exploratory"]


def test_registered_comparisons_need_both_tests():
    """A t-test may find what sign flips of 7 units do not."""
    base = np.linspace(0.5, 0.8, 7)
    gains = np.array([0.30, 0.25, 0.28, 0.31, 0.22, 0.27, -0.04])
    rest = np.array([0.01, 0.01, 0.02, 0.01, 0.01, 0.01, -0.009])
    for d in (gains, rest):
        values = {str(i): np.array([x]) for i, x in enumerate(base)}
        mine = {u: v + d[i] for i, (u, v) in enumerate(values.items())}
        alone = compare_all(mine, {"no_teacher": values})["no_teacher"]
        named = compare_all(mine, {"no_teacher": values}, registered=("no_teacher",))
        both = named["no_teacher"]
        assert both.p_adjusted == max(alone.p_t, alone.p_signflip)
        assert (both.verdict == "better") == (both.p_adjusted < 0.05)
        assert alone.p_adjusted == alone.p_t < 0.05


def test_the_negative_control_is_compared_with_its_own_row():
    runs = {
        "student": [fake_run(0.9, s) for s in (1, 2)],
        "no_teacher": [fake_run(0.3, s) for s in (3, 4)],
        "a_a": [fake_run(0.3, s) for s in (5, 6)],
        "linear": [fake_run(0.3, 7)],
    }
    summary = summarise(runs, ["accuracy"])
    rows, found = by_name(summary), summary.comparisons["accuracy"]
    gap = rows["a_a"]["mean"] - rows["no_teacher"]["mean"]
    assert found["a_a"].mean_difference == pytest.approx(gap)
    # It is in no family: linear, alone in one, is at 5 %.
    assert found["a_a"].level == found["linear"].level == 0.05
    assert found["a_a"].p_adjusted == found["a_a"].p_t
    orphan = {name: x for name, x in runs.items() if name != "no_teacher"}
    row = by_name(summarise(orphan, ["accuracy"]))["a_a"]
    assert row["verdict"] is None
    assert "no no_teacher" in row["reason"]


def test_a_row_that_the_teacher_does_not_beat_has_no_room():
    runs = {
        "teacher": [fake_run(0.9, 0)],
        "student": [fake_run(0.8, 1)],
        "no_teacher": [fake_run(0.3, 2)],
        "alpha_0": [fake_run(0.88, 3)],
    }
    summary = summarise(runs, ["accuracy"])
    rows, found = by_name(summary), summary.comparisons["accuracy"]
    for name in ("no_teacher", "alpha_0"):
        gap = rows["teacher"]["mean"] - rows[name]["mean"]
        assert rows[name]["no_room"] == (gap < found[name].mde)
    assert rows["alpha_0"]["no_room"]
    assert not rows["no_teacher"]["no_room"]
    assert rows["student"]["no_room"]
    assert rows["teacher"]["no_room"] is None
    bare = {name: x for name, x in runs.items() if name != "teacher"}
    assert by_name(summarise(bare, ["accuracy"]))["alpha_0"]["no_room"] is None


def test_folds_as_units_say_so_and_have_no_cohort():
    run = fake_run(0.9, 1, subjects=5)
    runs = {"student": [run], "no_teacher": [fake_run(0.2, 2, subjects=5)]}
    rows = result_rows(runs, ["auroc"], units="fold", folds=run.subject)
    assert {row["unit"] for row in rows} == {"fold"}
    assert all(row["verdict"] is None for row in rows)
    assert "too few units: 5, and a verdict needs 6" in rows[1]["reason"]
    assert "differences +" in rows[0]["reason"]
