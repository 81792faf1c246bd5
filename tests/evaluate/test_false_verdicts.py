"""The program that counts false verdicts, on a store of a few people."""

import numpy as np
import pytest

from eegkd.evaluate.paired import Trainings, paired_comparison
from eegkd.evaluate.trainings import Spread
from experiments.false_verdicts import (
    draw_runs,
    fit_variances,
    rates,
    simulate_runs,
    told,
    train_splits,
)
from tests.support.stores import tiny_store


def test_the_program_judges_as_runs_are_judged():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5):
        mine, other = rng.normal(shift, 1, (12, 2)), rng.normal(0, 1, (12, 2))
        given = Trainings(0.01, 0.01**2 / 4, 4.0)
        want = paired_comparison(mine, other, trainings=given)
        found, effect = told(mine, other, given)
        assert found == (want.verdict != "undetectable")
        assert effect == want.mde


@pytest.mark.slow
def test_false_verdicts_are_counted_on_trainings():
    store = tiny_store(14, 12, gain=0.6)
    sizes = {"splits": 3, "seeds": 10, "people": 6, "tested": 8}
    trained = list(train_splits(store, **sizes))
    assert [x.shape for x in trained] == [(8, 10)] * 3
    found = rates(list(draw_runs(trained, 40)))
    assert 0 <= found.false <= 1
    assert found.effect >= found.effect_alone > 0
    own = fit_variances(trained)
    between = np.mean([x.mean(axis=0).var(ddof=1) for x in trained])
    assert own.between == pytest.approx(between)
    assert own.df == 9


@pytest.mark.slow
def test_simulated_runs_have_the_rates_that_are_promised():
    own = Spread(1.0, 0.014**2 + 0.0137**2 / 20, 0.0137**2 / 20, 9.0, 171.0)
    found = rates(list(simulate_runs(own, 2000, people=20)))
    assert found.units_alone > 0.15
    assert 0.03 < found.false < 0.065
    assert 0.75 < found.power < 0.85
    assert np.isfinite(found).all()
