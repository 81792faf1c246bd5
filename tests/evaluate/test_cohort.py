"""The cohort as unit, against SciPy and plain restatements."""

import itertools
import json
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from eegkd.evaluate.bootstrap import bca_interval, draw_subjects, label_strata
from eegkd.evaluate.cohort import (
    answers,
    compare_cohort,
    figures_of,
    make_cohort,
    over_folds,
    spreads_of_cohort,
    swap_p,
)
from eegkd.evaluate.predictions import make_predictions, select
from eegkd.evaluate.statistics import summarise, unit_of


def patients(gain, seed, *, num=24, windows=6, spread=1.0):
    """Each person has one class; a person's windows share most of their noise."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(num) % 2, windows)
    z = gain * (2 * label - 1) + np.repeat(rng.normal(0, spread, num), windows)
    p = 1 / (1 + np.exp(-z - rng.normal(0, 0.5, len(label))))
    names = np.repeat([f"s{i:03d}" for i in range(num)], windows)
    return make_predictions(np.stack([1 - p, p], 1), label, names)


def folds_of(predictions, num):
    _, code = np.unique(predictions.subject, return_inverse=True)
    return code // 2 % num


def own_scores(predictions):
    names = np.unique(predictions.subject)
    mean = [predictions.prob[predictions.subject == s, 1].mean() for s in names]
    gold = [predictions.label[predictions.subject == s][0] for s in names]
    return np.array(mean, np.float64), np.array(gold)


def test_a_perfect_student_of_patients_and_controls_is_better():
    """At 83fed93 it was `nan, n = 0: undetectable`."""
    weak, perfect = patients(0.2, 1), patients(4.0, 2, spread=0.1)
    summary = summarise({"student": [perfect], "no_teacher": [weak]}, ["auroc"])
    rows = {row["model"]: row for row in summary.rows}
    assert rows["student"]["pooled"] == rows["student"]["mean"] == 1
    assert rows["student"]["verdict"] == rows["no_teacher"]["verdict"] == "better"
    assert {row["unit"] for row in rows.values()} == {"cohort"}
    assert {row["n_subjects"] for row in rows.values()} == {24}
    mean, gold = own_scores(weak)
    assert rows["no_teacher"]["mean"] == pytest.approx(roc_auc_score(gold, mean))
    assert rows["no_teacher"]["low"] < rows["no_teacher"]["mean"]
    json.dumps(summary.rows, allow_nan=False)
    # Accuracy exists for each person: the unit is decided by the metric.
    accuracy = summarise({"student": [perfect], "no_teacher": [weak]}, ["accuracy"])
    assert {row["unit"] for row in accuracy.rows} == {"subject"}


def test_a_model_against_itself_is_nothing():
    runs = {"student": [patients(0.5, 1)], "no_teacher": [patients(0.5, 1)]}
    found = summarise(runs, ["auroc"]).comparisons["auroc"]["no_teacher"]
    assert (found.mean_difference, found.low, found.high) == (0, 0, 0)
    assert (found.verdict, found.p_signflip) == ("undetectable", 1)


def test_below_twenty_people_there_is_no_verdict():
    runs = {
        "student": [patients(4.0, 1, num=18)],
        "no_teacher": [patients(0.0, 2, num=18)],
    }
    summary = summarise(runs, ["auroc"])
    assert all(row["verdict"] is None for row in summary.rows)
    assert "too few units: 18, and a verdict needs 20" in summary.rows[1]["reason"]
    assert summary.comparisons["auroc"]["no_teacher"].needed >= 20


def test_the_unit_is_the_cohort_where_few_have_a_figure():
    def values(known, num):
        return {str(i): np.array([0.5 if i < known else np.nan]) for i in range(num)}

    assert unit_of(values(40, 40), 40) == "subject"
    assert unit_of(values(20, 40), 40) == "subject"
    assert unit_of(values(19, 40), 40) == "cohort"
    assert unit_of(values(5, 8), 8) == "cohort"
    # Nothing is gained where everybody has a figure; those without a label are nobody.
    assert unit_of(values(3, 3), 3) == "subject"
    assert unit_of(values(3, 9), 3) == "subject"


def test_the_interval_is_that_of_scipy():
    """Two strata are the two samples of SciPy's BCa: the same draws by chance alone."""
    rng = np.random.default_rng(0)
    data = rng.gamma(1.0, 1.0, 30), rng.gamma(2.0, 1.0, 24)
    strata = np.repeat([0, 1], [30, 24])
    joined = np.concatenate(data)

    def gap(weights):
        a, b = weights * (strata == 0), weights * (strata == 1)
        return (b @ joined) / b.sum(-1) - (a @ joined) / a.sum(-1)

    drawn = gap(draw_subjects(strata, seed=0, num=20_000))
    without = gap(1 - np.eye(54))
    got = bca_interval(float(gap(np.ones(54))), drawn, without, strata)
    want = stats.bootstrap(
        data,
        lambda x, y, axis: y.mean(axis) - x.mean(axis),
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(got, want, atol=0.02)
    assert drawn.std() == pytest.approx(
        np.sqrt(sum(x.var() / len(x) for x in data)), rel=0.03
    )


def test_draws_keep_the_numbers_of_label_sets():
    has = np.array([[1, 0]] * 9 + [[0, 1]] * 6 + [[1, 1]] * 2 + [[0, 0]], bool)
    strata = label_strata(has)
    # Rare sets are drawn from together.
    assert len(set(strata)) == 3
    assert len(set(strata[15:])) == 1
    weights = draw_subjects(strata, seed=3, num=50)
    for own in (slice(0, 9), slice(9, 15), slice(15, 18)):
        assert set(weights[:, own].sum(axis=1)) == {weights[0, own].size}
    np.testing.assert_array_equal(weights, draw_subjects(strata, seed=3, num=50))


def test_the_figure_is_of_mean_scores_in_each_fold():
    runs = {"student": [patients(0.5, s) for s in (1, 2)]}
    folds = folds_of(runs["student"][0], 3)
    cohort = make_cohort(runs, folds, "auroc")
    whole = figures_of(cohort, draw_subjects(cohort.strata, seed=0, num=3))["student"]
    want = []
    for p in runs["student"]:
        for fold in range(3):
            mean, gold = own_scores(select(p, folds == fold))
            want.append(roc_auc_score(gold, mean))
    np.testing.assert_allclose(whole.whole.ravel(), want)
    assert over_folds(whole.whole) == pytest.approx(np.mean(want))


def test_windows_count_where_one_person_has_both_classes():
    p = patients(0.5, 1)
    label = p.label.copy()
    label[0] = 1
    p = p._replace(label=label)
    cohort = make_cohort({"student": [p]}, np.zeros(len(label)), "auroc")
    got = figures_of(cohort, np.ones((1, 24)))["student"].whole
    assert got[0, 0] == pytest.approx(roc_auc_score(label, p.prob[:, 1]))


def test_swaps_are_those_of_a_plain_enumeration():
    """Every way to swap 8 people, and each seed with all of its person's windows."""
    runs = {
        "student": [patients(1.0, s, num=8) for s in (1, 2)],
        "no_teacher": [patients(0.4, 3, num=8)],
    }
    p = runs["student"][0]
    cohort = make_cohort(runs, np.zeros(len(p.label)), "auroc")
    scores = {m: [own_scores(x)[0] for x in seeds] for m, seeds in runs.items()}
    gold = own_scores(p)[1] == 1

    def area(x):
        return np.mean(x[gold][:, None] > x[~gold])

    def gap(swapped):
        found = []
        for mine in scores["student"]:
            other = scores["no_teacher"][0]
            a, b = np.where(swapped, other, mine), np.where(swapped, mine, other)
            found.append(area(a) - area(b))
        return np.mean(found)

    values = [abs(gap(np.array(s))) for s in itertools.product([False, True], repeat=8)]
    want = np.mean(np.array(values) >= values[0] - 1e-9)
    got = swap_p(cohort, "student", "no_teacher", seed=0, num=4000)
    assert got == pytest.approx(want, abs=4 * np.sqrt(want / 4000))


def test_the_error_holds_trainings():
    """Two runs of one recipe, each of whose seeds shifts all people at once."""
    rng = np.random.default_rng(0)

    def seed(shift, key):
        return patients(0.6 + shift, key, num=40, spread=0.8)

    runs = {
        name: [seed(rng.normal(0, 0.5), 10 * i + k) for k in range(3)]
        for i, name in enumerate(("student", "no_teacher", "a_a"))
    }
    folds = np.zeros(len(runs["student"][0].label))
    cohort = make_cohort(runs, folds, "auroc")
    figures = figures_of(cohort, draw_subjects(cohort.strata, seed=0))
    (own,) = spreads_of_cohort(cohort, figures)["student"]
    between = np.mean([x.whole[:, 0].var(ddof=1) for x in figures.values()])
    assert own.between == pytest.approx(between)
    assert (own.weight, own.df) == (1, 6)
    bare = compare_cohort(cohort, figures, "student", "no_teacher")
    whole = summarise(runs, ["auroc"]).comparisons["auroc"]["no_teacher"]
    assert whole.error**2 == pytest.approx(bare.error**2 + 2 / 3 * own.variance)
    assert bare.df == np.inf
    assert bare.mde == pytest.approx((1.959964 + 0.841621) * bare.error, rel=1e-6)


def test_label_sets_are_known_of_classes_and_of_vectors():
    names = np.repeat(["a", "b"], 3)
    prob = np.full((6, 2), 0.5)
    classes = make_predictions(prob, [0, 0, 1, 1, 1, 1], names)
    has, lacks = answers(classes, np.repeat([0, 1], 3), 2)
    assert has.tolist() == [[True, True], [False, True]]
    assert (has & lacks).any(axis=1).tolist() == [True, False]
    label = np.array([[1, 0], [1, -1], [1, 0], [0, -1], [0, -1], [-1, -1]])
    vectors = make_predictions(prob, label, names)
    has, lacks = answers(vectors, np.repeat([0, 1], 3), 2)
    assert has.tolist() == [[True, False], [False, False]]
    assert lacks.tolist() == [[False, True], [True, False]]
    cohort = make_cohort({"student": [vectors]}, np.zeros(6), "auroc")
    part = cohort.parts["student"][0][0].predictions
    np.testing.assert_array_equal(part.label, [[1, 0], [0, -1]])


def records(noise, seed, *, num=90, k=9):
    """One person a record, several labels each, some of them rare."""
    label = np.random.default_rng(0).random((num, k)) < np.linspace(0.08, 0.5, k)
    z = 2.0 * label + np.random.default_rng(seed).normal(0, noise, (num, k))
    prob = 1 / (1 + np.exp(1 - z))
    return make_predictions(prob, label.astype(int), [f"r{i:02d}" for i in range(num)])


def test_records_of_several_labels_are_judged_as_a_cohort():
    """Nobody has a macro AUROC of their own, and hardly two have one label set."""
    folds = np.arange(90) % 5
    runs = {
        "student": [records(0.8, 1)],
        "no_teacher": [records(3.0, 2)],
        "alpha_0": [records(0.8, 1)],
    }
    summary = summarise(runs, ["macro_auroc"], folds=folds)
    rows = {row["model"]: row for row in summary.rows}
    assert {(row["unit"], row["n_subjects"]) for row in rows.values()} == {
        ("cohort", 90)
    }
    assert rows["no_teacher"]["verdict"] == "better"
    assert rows["student"]["verdict"] == "undetectable"
    same = summary.comparisons["macro_auroc"]["alpha_0"]
    assert (same.mean_difference, same.low, same.high) == (0, 0, 0)
    for row in rows.values():
        assert row["low"] < row["mean"] < row["high"] <= 1


@pytest.mark.slow
def test_two_thousand_draws_take_seconds():
    """30 trainings of 200 people and 10^4 windows, half of them of both classes."""

    def run(seed):
        p = patients(0.5, seed, num=200, windows=50)
        label = p.label.copy()
        label[:50:2] = 1
        return p._replace(label=label)

    runs = {name: [run(i)] * 3 for i, name in enumerate(("student", "no_teacher"))}
    folds = folds_of(runs["student"][0], 5)
    began = time.process_time()
    summarise(runs, ["auroc"], folds=folds)
    assert time.process_time() - began < 20


def equally_good(several, turn):
    """Two models of 90 people that see nearly the same: 3 classes, or 9 labels."""
    rng = np.random.default_rng(turn)
    if several:
        label = rng.random((90, 9)) < np.linspace(0.1, 0.5, 9)
        seen = 1.5 * label
    else:
        label = rng.permutation(np.arange(90) % 3)
        seen = 1.0 * np.eye(3)[label]
    seen = seen + rng.normal(0, 0.8, seen.shape)
    names = [f"s{i:02d}" for i in range(90)]
    runs = {}
    for name in ("student", "no_teacher"):
        e = np.exp(seen + rng.normal(0, 0.6, seen.shape))
        prob = e / (1 + e) if several else e / e.sum(1, keepdims=True)
        runs[name] = [make_predictions(prob, label.astype(int), names)]
    return runs


@pytest.mark.parametrize(
    ("several", "num"),
    [
        pytest.param(False, 150, marks=pytest.mark.slow),
        pytest.param(True, 100, marks=pytest.mark.nightly),
    ],
)
def test_coverage_and_false_verdicts_of_90_people(several, num):
    metric = "macro_auroc" if several else "auroc"
    false = covered = 0
    for turn in range(num):
        summary = summarise(
            equally_good(several, turn), [metric], folds=np.arange(90) % 5
        )
        c = summary.comparisons[metric]["no_teacher"]
        false += c.verdict != "undetectable"
        covered += c.low <= 0 <= c.high
    # About three standard errors beside 5 %.
    assert false / num < 0.115
    assert covered / num > 0.885


def test_an_interval_of_biased_draws_holds_its_estimate():
    drawn = np.random.default_rng(0).normal(0.3, 0.02, 2_000)
    without, one = np.linspace(0.23, 0.25, 40), np.zeros(40, int)
    for whole in (0.24, 0.36):
        low, high = bca_interval(whole, drawn, without, one)
        assert low < whole < high
        assert high - low == pytest.approx(2 * 1.96 * 0.02, rel=0.1)
    # Less bias is BCa's: an estimate half a deviation low moves the upper end from the
    # quantile of 1.96 to that of 1.96 - 2 / 2.
    low, high = bca_interval(0.29, drawn, without, one)
    assert low < 0.29 < high == pytest.approx(0.3 + 0.96 * 0.02, abs=0.003)
