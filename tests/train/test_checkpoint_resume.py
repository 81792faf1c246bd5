"""Everything that a step changes comes back bit for bit, a balancer's state too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.errors import Interrupted
from eegkd.losses import Balancer
from eegkd.train import (
    OptimConfig,
    init_state,
    make_optimiser,
    make_runner,
    make_train_step,
    train,
)
from tests.support import toy
from tests.support.toy_runs import ToyLoader, flat, with_loop_options


def running_mean():
    """Scales each term by the inverse of a running mean of its values."""

    def init(names):
        return {"mean": dict.fromkeys(names, jnp.float32(1)), "seen": jnp.int32(0)}

    def weigh(state, raw_means, grad_norms):
        del grad_norms
        mean = {k: 0.7 * state["mean"][k] + 0.3 * raw_means[k] for k in raw_means}
        scale = {k: 1 / (jnp.abs(v) + 0.1) for k, v in mean.items()}
        return scale, {"mean": mean, "seen": state["seen"] + 1}

    return Balancer(init, weigh)


@pytest.fixture(scope="module")
def run():
    system = toy.make_system(dropout=0.2)
    made = toy.make_variables(system)
    tx, balancer = make_optimiser(OptimConfig(learning_rate=0.05), 9), running_mean()

    def make_step(axis_name):
        return make_train_step(
            system, "student", tx, axis_name=axis_name, balancer=balancer
        )

    runner = make_runner("single", make_step)
    key = jax.random.key(5)
    start = init_state(system.stages[1], made["student"], tx, key, balancer=balancer)

    def train_once(**options):
        return train(
            runner,
            start,
            ToyLoader(),
            frozen=made["student"].frozen,
            upstream={"teacher": made["teacher"]},
            num_steps=9,
            evaluate=lambda state: {"loss": float(state.params["logit_scale"])},
            **with_loop_options({"eval_every": 2} | options),
        )

    return train_once


def test_the_balancer_is_used(run):
    state, _ = run()
    assert int(state.balancer["seen"]) == 9
    assert all(float(v) != 1 for v in state.balancer["mean"].values())


@pytest.mark.parametrize("at", [1, 4, 8])
def test_key_optimiser_balancer_and_best_come_back(run, tmp_path, at):
    want, want_history = run()
    done = []
    with pytest.raises(Interrupted):
        run(
            checkpoint_dir=tmp_path,
            progress=done.append,
            stop=lambda: done[-1] == at,
        )
    got, history = run(checkpoint_dir=tmp_path)
    assert history.resumed_from == at
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(flat(got), flat(want), strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()
    for x, y in zip(flat(history.best), flat(want_history.best), strict=True):
        np.testing.assert_array_equal(x, y)
    assert history.best_step == want_history.best_step
    assert history.best_value == want_history.best_value
