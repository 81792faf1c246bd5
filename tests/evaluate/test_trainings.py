"""The variance of trainings: a plain restatement, and the rates that follow from it."""

import itertools

import numpy as np
import pytest
from scipy import stats

from eegkd.evaluate.paired import paired_comparison
from eegkd.evaluate.trainings import spreads_of_units, structure_of, trainings_of
from experiments.false_verdicts import told

ROWS = ("student", "no_teacher", "alpha_0", "shuffled_teacher", "a_a")


def plain(values, folds, mine, other):
    """V and its degrees of freedom, in loops, in float64."""
    a, b = values[mine].astype(float), values[other].astype(float)
    d = [sum(x) / len(x) - sum(y) / len(y) for x, y in zip(a, b, strict=True)]
    n, mean = len(d), sum(d) / len(d)
    units = sum((x - mean) ** 2 for x in d) / (n - 1) / n
    total, below, least = units, units**2 / (n - 1), n - 1
    for fold in sorted(set(folds)):
        own = [i for i in range(n) if folds[i] == fold]
        m = len(own)
        if m < 2:
            continue
        top = rest = df = df_rest = 0.0
        for row in ROWS:
            x = values[row][own]
            seeds = x.shape[1]
            if seeds < 2:
                continue
            by_seed = [sum(x[:, k]) / m for k in range(seeds)]
            by_unit = [sum(x[i]) / seeds for i in range(m)]
            grand = sum(by_seed) / seeds
            top += sum((s - grand) ** 2 for s in by_seed)
            for i, k in itertools.product(range(m), range(seeds)):
                rest += (x[i, k] - by_unit[i] - by_seed[k] + grand) ** 2
            df += seeds - 1
            df_rest += (seeds - 1) * (m - 1)
        between = top / df
        within = rest / df_rest / m
        scale = (m / n) ** 2 * (1 / a.shape[1] + 1 / b.shape[1])
        if between > within:
            total += scale * (between - within)
            below += scale**2 * (between**2 / df + within**2 / df_rest)
            least = min(least, df)
    return mean, total, max(total**2 / below, least)


def judge(values, folds, mine="student", other="no_teacher"):
    spreads = spreads_of_units(values, folds)
    sides = [(structure_of(row), values[row].shape[1]) for row in (mine, other)]
    more = trainings_of(spreads, sides)
    return paired_comparison(values[mine], values[other], trainings=more)


def draw(rng, folds, *, seeds=2, trainings=0.014, each=0.0137):
    """Figures of units: people, trainings of a fold, and what both share."""
    n, num = len(folds), folds.max() + 1
    people = rng.normal(0.7, 0.1, (n, 1))
    return {
        row: people
        + rng.normal(0, trainings, (num, seeds))[folds]
        + rng.normal(0, each, (n, seeds))
        for row in ROWS
    }


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_error_is_that_of_the_formula(seeds):
    rng = np.random.default_rng(seeds)
    folds = np.array([0] * 7 + [1] * 5 + [2])
    values = draw(rng, folds, seeds=seeds)
    values["a_a"] = values["a_a"][:, :1]  # One seed tells nothing.
    got = judge(values, folds)
    mean, total, df = plain(values, folds, "student", "no_teacher")
    assert got.mean_difference == pytest.approx(mean)
    assert got.error == pytest.approx(np.sqrt(total))
    assert got.df == pytest.approx(df)
    half = stats.t.ppf(0.975, df) * np.sqrt(total)
    assert (got.low, got.high) == pytest.approx((mean - half, mean + half))
    assert got.p_t == pytest.approx(2 * stats.t.sf(abs(mean) / np.sqrt(total), df))


def test_one_person_a_fold_has_it_among_the_people():
    rng = np.random.default_rng(0)
    folds = np.arange(12)
    values = draw(rng, folds)
    got = judge(values, folds)
    alone = paired_comparison(values["student"], values["no_teacher"])
    assert (got.error, got.df) == (alone.error, alone.df)


def test_a_teacher_and_a_linear_row_have_no_variance_of_trainings():
    rng = np.random.default_rng(1)
    folds = np.zeros(12, int)
    values = draw(rng, folds, trainings=0.05)
    values["linear"] = values["student"][:, :1] - 0.1
    spreads = spreads_of_units(values, folds)
    (own,) = spreads["student"]
    mine = trainings_of(spreads, [("student", 2), ("linear", 1)])
    both = trainings_of(spreads, [("student", 2), ("student", 2)])
    assert mine.variance == pytest.approx(own.variance / 2)
    assert both.variance == pytest.approx(own.variance)
    assert trainings_of(spreads, [("teacher", 1), ("linear", 1)])[:2] == (0, 0)
    assert structure_of("static") == "static"
    assert structure_of("static", ("static",)) == "student"


def test_a_person_without_a_figure_is_left_out_of_a_row():
    rng = np.random.default_rng(2)
    folds = np.zeros(9, int)
    values = draw(rng, folds)
    gone = {name: x.copy() for name, x in values.items()}
    gone["alpha_0"][3] = np.nan
    got = spreads_of_units(gone, folds)["student"][0]
    less = {name: np.delete(x, 3, axis=0) for name, x in values.items()}
    assert np.isfinite(got).all()
    alone = spreads_of_units({"alpha_0": gone["alpha_0"]}, folds)["student"][0]
    same = spreads_of_units({"alpha_0": less["alpha_0"]}, folds[:8])["student"][0]
    assert alone == same


def rates(num, folds, **options):
    """False verdicts by people alone, and by both; power at the effect printed."""
    rng, found = np.random.default_rng(0), np.zeros((num, 3))
    for i in range(num):
        values = draw(rng, folds, **options)
        mine, other = values["student"], values["no_teacher"]
        sides = [("student", mine.shape[1]), ("student", other.shape[1])]
        more = trainings_of(spreads_of_units(values, folds), sides)
        naive, (false, effect) = told(mine, other)[0], told(mine, other, more)
        found[i] = naive, false, told(mine + effect, other, more)[0]
    return found.mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(("num_folds", "trainings"), [(1, 0.014), (1, 0.0), (5, 0.014)])
def test_false_verdicts_and_power_where_trainings_vary(num_folds, trainings):
    """20 people, two seeds: by people alone 19 % of verdicts would be false."""
    folds = np.repeat(np.arange(num_folds), 20 // num_folds)
    naive, false, power = rates(1500, folds, trainings=trainings)
    if num_folds == 1 and trainings:
        assert naive > 0.15
    assert 0.02 < false < 0.065
    assert 0.75 < power < 0.85
