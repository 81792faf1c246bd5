import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.losses import Term, fixed, gradnorm, kd_kl, scheduled, uncertainty
from eegkd.systems import Stage, System, replace_stage
from eegkd.train import init_state, make_gradient_report, make_train_step
from eegkd.train.parallel import RUNNERS
from eegkd.train.state import copy_arrays
from eegkd.typing import Variables
from tests.support import toy


def run(balancer, *, runner="single", accumulate=1, steps=5, system=None, size=16):
    system = system or toy.make_system()
    made, tx = toy.make_variables(system), optax.sgd(0.3)
    spread = RUNNERS[runner](
        lambda axis: make_train_step(
            system,
            "student",
            tx,
            balancer=balancer,
            axis_name=axis,
            accumulate=accumulate,
        )
    )
    state = init_state(
        system.stages[1], made["student"], tx, jax.random.key(3), balancer=balancer
    )
    state = spread.place(state)
    frozen, upstream = spread.place((made["student"].frozen, made))
    for i in range(steps):
        batch = spread.put(toy.make_batch(size, i))
        state, metrics = spread.step(state, frozen, upstream, batch)
    return state, metrics


@pytest.fixture(scope="module")
def alone():
    return run(gradnorm(learning_rate=0.1))


@pytest.mark.parametrize(
    ("runner", "accumulate"),
    [
        ("shard_map", 4),
        pytest.param("single", 4, marks=pytest.mark.slow),
        pytest.param("mesh", 1, marks=pytest.mark.slow),
        pytest.param("pmap", 1, marks=pytest.mark.nightly),
        pytest.param("shard_map", 1, marks=pytest.mark.nightly),
    ],
)
def test_gradnorm_is_the_same_on_every_runner(alone, runner, accumulate):
    want, want_metrics = alone
    got, metrics = run(
        gradnorm(learning_rate=0.1), runner=runner, accumulate=accumulate
    )
    for a, b in zip(
        jax.tree.leaves((got.params, got.balancer)),
        jax.tree.leaves((want.params, want.balancer)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for k, value in want_metrics.items():
        np.testing.assert_allclose(metrics[k], value, rtol=1e-4, err_msg=k)


def test_terms_that_are_not_balanced_keep_their_weight():
    own = toy.make_system()
    student = own.stages[1]._replace(balanced=("kd",))
    twice = fixed({"kd": 2.0})
    state, metrics = run(twice, steps=1, system=replace_stage(own, student))
    assert set(state.balancer) == {"kd"}
    scale = {k: metrics[f"weighted/{k}"] / metrics[f"raw/{k}"] for k in ("clip", "kd")}
    np.testing.assert_allclose([scale["clip"], scale["kd"]], [0.5, 1.0], rtol=1e-6)


def test_gradnorm_gets_the_norms_of_raw_means():
    """The term's own weight, 0.5, is not in them."""

    def weigh(state, raw_means, grad_norms):
        return {k: jnp.ones(()) for k in raw_means}, grad_norms

    spy = gradnorm()._replace(
        init=lambda names: {k: jnp.zeros(()) for k in names}, weigh=weigh
    )
    state, _ = run(spy, steps=1)
    seen = state.balancer
    system = toy.make_system()
    for keep in ("clip", "kd"):
        stage = system.stages[1]
        (term,) = (t for t in stage.terms if t.name == keep)
        one = replace_stage(system, stage._replace(terms=(term._replace(weight=1.0),)))
        _, metrics = run(None, steps=1, system=one)
        np.testing.assert_allclose(seen[keep], metrics["grad_norm"], rtol=1e-5)


@pytest.mark.slow
def test_shared_parameters_are_chosen_by_their_path():
    def weigh(state, raw_means, grad_norms):
        return {k: jnp.ones(()) for k in raw_means}, grad_norms

    def norms(shared):
        spy = gradnorm(shared=shared)._replace(
            init=lambda names: {k: jnp.zeros(()) for k in names}, weigh=weigh
        )
        return run(spy, steps=1)[0].balancer["kd"]

    parts = [norms((name,)) for name in ("in", "out/kernel", "logit_scale")]
    np.testing.assert_allclose(np.linalg.norm(parts), norms(()), rtol=1e-5)
    with pytest.raises(ValueError, match="begins with 'inn'"):
        norms(("inn",))


def two_scales(gap):
    """Two noisy regressions on one map, the second's loss `gap` times as large."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(64, 4)).astype(np.float32)
    targets = signal @ rng.normal(size=(2, 4, 2)) + 0.5 * rng.normal(size=(2, 64, 2))
    targets = targets.astype(np.float32)
    batch = {"signal": signal, "a": targets[0], "b": targets[1]}

    def init(key, batch, earlier):
        del batch, earlier
        kernel = 0.1 * jax.random.normal(key, (4, 4))
        heads = jax.random.normal(jax.random.key(7), (2, 4, 2))
        return Variables({"shared": kernel, "heads": heads}, {}, {})

    def forward(variables, batch, upstream, *, train, key):
        del upstream, train, key
        p = variables.params
        out = jnp.einsum("bi,ij,hjk->hbk", batch["signal"], p["shared"], p["heads"])
        return {"a": out[0], "b": out[1]}, {}

    def squares(scale):
        return lambda x, y: scale * jnp.mean((x - y) ** 2, axis=-1)

    terms = (
        Term("a", squares(1.0), ("student.a", "batch.a")),
        Term("b", squares(gap), ("student.b", "batch.b")),
    )
    stage = Stage("student", init, forward, terms)
    return System("two", ("signal",), lambda x: x, (stage,), lambda *_: None), batch


def trained(balancer, gap=1000.0, steps=400):
    system, batch = two_scales(gap)
    (stage,) = system.stages
    variables, tx = stage.init(jax.random.key(0), batch, {}), optax.sgd(0.05)
    tx = optax.chain(optax.clip_by_global_norm(1.0), tx)
    step = make_train_step(system, "student", tx, balancer=balancer)
    state = init_state(stage, variables, tx, jax.random.key(1), balancer=balancer)

    def body(state, _):
        return step(state, {}, {}, batch)

    state, metrics = jax.jit(lambda s: jax.lax.scan(body, s, None, length=steps))(state)
    excess = []
    for name, scale in (("a", 1.0), ("b", gap)):
        best = np.linalg.lstsq(batch["signal"], batch[name], rcond=None)[0]
        floor = ((batch["signal"] @ best - batch[name]) ** 2).mean()
        excess.append(float(metrics[f"raw/{name}"][-50:].mean()) / scale - floor)
    return state, metrics, excess


@pytest.mark.slow
def test_a_gap_of_a_thousand_needs_no_weights_by_hand():
    """Updates are of one size: unbalanced, the loud regression takes them all."""
    _, _, plain = trained(None)
    for balancer in (
        uncertainty(learning_rate=0.1),
        gradnorm(learning_rate=0.1, shared=("shared",)),
    ):
        _, _, excess = trained(balancer)
        assert max(excess) < 0.1 * max(plain), (excess, plain)


def test_gradnorm_brings_norms_together():
    state, metrics, _ = trained(gradnorm(alpha=0.0, learning_rate=0.05), steps=300)
    logs = state.balancer["log_scale"]
    assert logs["a"] - logs["b"] > 3
    np.testing.assert_allclose(np.mean(np.exp([logs["a"], logs["b"]])), 1, rtol=1e-5)


def test_uncertainty_brings_means_to_one():
    balancer = uncertainty(learning_rate=0.1)
    state = balancer.init(("a", "b"))
    means = {"a": jnp.float32(1000.0), "b": jnp.float32(0.01)}
    weigh = jax.jit(balancer.weigh)
    for _ in range(300):
        scale, state = weigh(state, means, None)
    for k, mean in means.items():
        np.testing.assert_allclose(scale[k] * mean, 1, rtol=0.15)


def test_terms_left_out_and_empty_batches_keep_their_scale():
    norms = {k: jnp.float32(2.0) for k in "abc"}
    for make in (uncertainty, gradnorm):
        balancer = make(("a", "b"))
        state = balancer.init(("a", "b", "c"))
        means = {"a": jnp.float32(3.0), "b": jnp.float32(0.0), "c": jnp.float32(-9.0)}
        for _ in range(3):
            scale, state = balancer.weigh(state, means, norms)
        assert scale["c"] == 1
        assert all(np.isfinite(x) for x in jax.tree.leaves((scale, state)))
        if make is uncertainty:
            assert scale["b"] == 1
            assert scale["a"] < 1
        with pytest.raises(ValueError, match="No term d"):
            make(("d",)).init(("a", "b"))


def test_gradnorm_favours_the_slow_learner():
    balancer = gradnorm(alpha=1.5)
    state = balancer.init(("fast", "slow"))
    norms = {k: jnp.float32(1.0) for k in ("fast", "slow")}
    for i in range(40):
        means = {"fast": jnp.float32(0.9**i), "slow": jnp.float32(1.0)}
        scale, state = balancer.weigh(state, means, norms)
    assert scale["slow"] > 1.3 * scale["fast"]


def test_gradnorm_without_norms_is_refused():
    balancer = gradnorm()
    with pytest.raises(ValueError, match="gradient norm"):
        balancer.weigh(balancer.init(("a",)), {"a": jnp.ones(())}, None)


def test_a_schedule_scales_by_the_updates_done():
    balancer = scheduled({"kd": lambda step: 2.0 * step})
    state, metrics = run(balancer, steps=4)
    assert state.balancer == 4
    np.testing.assert_allclose(metrics["weighted/kd"], 3 * metrics["raw/kd"], rtol=1e-6)
    np.testing.assert_allclose(
        metrics["weighted/clip"], 0.5 * metrics["raw/clip"], rtol=1e-6
    )
    with pytest.raises(ValueError, match="No term x"):
        scheduled({"x": lambda step: 1.0}).init(("kd",))


@pytest.mark.parametrize(
    "balancer", [None, fixed(), uncertainty()], ids=["none", "fixed", "uncertainty"]
)
def test_only_a_balancer_that_asks_pays_for_norms(balancer):
    """One pass forward and one back: as many products as without a balancer."""
    system = toy.make_system()
    made, tx = toy.make_variables(system), optax.sgd(0.1)

    def products(balancer):
        step = make_train_step(system, "student", tx, balancer=balancer)
        state = init_state(
            system.stages[1], made["student"], tx, jax.random.key(0), balancer=balancer
        )
        args = (state, made["student"].frozen, made, toy.make_batch())
        return jax.jit(step).lower(*args).as_text().count("dot_general")

    assert products(balancer) == products(None)
    assert products(gradnorm()) > products(None)


@pytest.mark.parametrize(
    "runner", ["shard_map", pytest.param("single", marks=pytest.mark.slow)]
)
def test_the_report_measures_norms_and_cosines(runner):
    system = toy.make_system()
    stage = system.stages[1]
    # A third term at odds with the second: its gradient is the negative.
    against = Term("against", lambda s, t: -kd_kl(s, t), stage.terms[1].inputs, 2.0)
    system = replace_stage(system, stage._replace(terms=(*stage.terms, against)))
    made, tx = toy.make_variables(system), optax.sgd(0.3)
    spread = RUNNERS[runner](
        lambda axis: make_gradient_report(system, "student", axis_name=axis)
    )
    state = init_state(system.stages[1], made["student"], tx, jax.random.key(3))
    placed = spread.place(copy_arrays(state))
    frozen, upstream = spread.place((made["student"].frozen, made))
    after, metrics = spread.step(placed, frozen, upstream, spread.put(toy.make_batch()))
    for a, b in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert metrics.keys() == {
        *("grad_norm/clip", "grad_norm/kd", "grad_norm/against"),
        *("grad_cosine/clip/kd", "grad_cosine/clip/against", "grad_cosine/kd/against"),
    }
    np.testing.assert_allclose(metrics["grad_cosine/kd/against"], -1, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["grad_cosine/clip/kd"],
        -metrics["grad_cosine/clip/against"],
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        metrics["grad_norm/against"], 4 * metrics["grad_norm/kd"], rtol=1e-5
    )
    _, plain = run(None, steps=1)
    # |a + b|^2 = |a|^2 + |b|^2 + 2 |a| |b| cos, of the two terms of the plain system.
    a, b = metrics["grad_norm/clip"], metrics["grad_norm/kd"]
    both = a**2 + b**2 + 2 * a * b * metrics["grad_cosine/clip/kd"]
    np.testing.assert_allclose(np.sqrt(both), plain["grad_norm"], rtol=1e-4)
