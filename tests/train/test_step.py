import jax
import numpy as np
import optax
import pytest

from eegkd.train import init_state, make_train_step
from eegkd.train.parallel import RUNNERS
from tests.train import toy


def run(
    system,
    name="student",
    runner="single",
    accumulate=1,
    steps=5,
    weights=None,
    tx=None,
    size=16,
):
    made = toy.make_variables(system)
    stage = {s.name: s for s in system.stages}[name]
    tx = tx or optax.sgd(0.3)
    spread = RUNNERS[runner](
        lambda axis: make_train_step(
            system, name, tx, axis_name=axis, accumulate=accumulate
        )
    )
    state = spread.place(
        init_state(stage, made[name], tx, jax.random.key(3), weights=weights)
    )
    frozen, upstream = spread.place((made[name].frozen, made))
    for i in range(steps):
        state, metrics = spread.step(
            state, frozen, upstream, spread.put(toy.make_batch(size, i))
        )
    return state, metrics


@pytest.mark.parametrize("runner", list(RUNNERS))
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_runners_and_accumulation_equal_one_batch(runner, accumulate):
    system = toy.make_system()
    want, want_metrics = run(system)
    got, metrics = run(system, runner=runner, accumulate=accumulate)
    before = toy.make_variables(system)["student"].params
    trees = map(jax.tree.leaves, (got.params, want.params, before))
    for g, w, b in zip(*trees, strict=True):
        assert np.max(np.abs(w - b)) > 1e-3
        np.testing.assert_allclose(g, w, atol=1e-5 * np.max(np.abs(w)), rtol=0)
    np.testing.assert_allclose(
        got.state["mean"], want.state["mean"], rtol=1e-5, atol=1e-6
    )
    assert got.state["count"] == 5
    assert metrics.keys() == want_metrics.keys()
    for k in metrics:
        np.testing.assert_allclose(metrics[k], want_metrics[k], rtol=1e-5, err_msg=k)
