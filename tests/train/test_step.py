import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.errors import InputError
from eegkd.losses import Term, fixed
from eegkd.systems import Stage, replace_stage
from eegkd.train import (
    OptimConfig,
    init_state,
    make_optimiser,
    make_runner,
    make_train_step,
)
from eegkd.train.parallel import RUNNERS, batch_size
from eegkd.typing import Variables
from tests.support import toy

SLOW = pytest.mark.slow
# Rows of the table of runners and micro-batches that the default suite asks.
COMMON = {("shard_map", 4), ("mesh", 1)}


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


def run_in_float64(**options):
    """As `run`, in numbers whose rounding, the processor's own, is far below 1e-9."""
    with jax.enable_x64(True):
        state, metrics = run(toy.make_system(), **options)
        before = toy.make_variables(toy.make_system())["student"].params
    return jax.tree.map(np.asarray, (state.params, state.state, metrics, before))


@pytest.fixture(scope="module")
def one_batch():
    return run_in_float64()


@pytest.mark.parametrize(
    ("runner", "accumulate"),
    [
        pytest.param(r, a, marks=() if (r, a) in COMMON else SLOW)
        for r in RUNNERS
        for a in (1, 4)
        if (r, a) != ("single", 1)
    ],
)
def test_runners_and_accumulation_equal_one_batch(one_batch, runner, accumulate):
    want, want_state, want_metrics, before = one_batch
    got, state, metrics, _ = run_in_float64(runner=runner, accumulate=accumulate)
    for g, w, b in zip(*map(jax.tree.leaves, (got, want, before)), strict=True):
        assert w.dtype == np.float64
        assert np.max(np.abs(w - b)) > 1e-3
        np.testing.assert_allclose(g, w, atol=1e-9 * np.max(np.abs(w)), rtol=0)
    np.testing.assert_allclose(state["mean"], want_state["mean"], rtol=1e-9)
    assert state["count"] == 5
    assert metrics.keys() == want_metrics.keys()
    for k in metrics:
        np.testing.assert_allclose(metrics[k], want_metrics[k], rtol=1e-9, err_msg=k)


def one_step(system, stage, **options):
    """Compiles one step; returns it with its arguments but the batch."""
    made, tx = toy.make_variables(system), optax.sgd(0.3)
    step = jax.jit(make_train_step(system, stage.name, tx, **options))
    state = init_state(stage, made[stage.name], tx, jax.random.key(3))
    return step, state, made[stage.name].frozen, made


def test_only_params_change_and_metrics_are_named():
    system = toy.make_system()
    stage = system.stages[1]
    step, state, frozen, made = one_step(system, stage)
    after, metrics = step(state, frozen, made, toy.make_batch())
    assert metrics.keys() == {
        *("loss", "grad_norm"),
        *("raw/clip", "raw/kd", "weighted/clip", "weighted/kd"),
    }
    loss = 0.5 * metrics["raw/clip"] + 0.5 * metrics["raw/kd"]
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    grads = jax.tree.map(
        lambda a, b: (a - b) / 0.3, made["student"].params, after.params
    )
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-4)
    assert after.step == 1
    assert after.state["count"] == 1
    np.testing.assert_array_equal(
        jax.random.key_data(after.key), jax.random.key_data(state.key)
    )


@pytest.mark.parametrize(
    ("accumulate", "dropout"), [(4, 0.3), pytest.param(1, 0.0, marks=SLOW)]
)
def test_gradient_is_that_of_finite_differences(accumulate, dropout):
    """With dropout, both passes of accumulation have to see the same masks."""
    system = toy.make_system(dropout)
    stage = system.stages[1]
    with jax.enable_x64(True):
        made = toy.make_variables(system)
        params, upstream = jax.tree.map(
            np.float64, (made["student"].params, made["teacher"])
        )
        tx, batch = optax.sgd(1.0), toy.make_batch()
        step = jax.jit(make_train_step(system, "student", tx, accumulate=accumulate))
        variables = made["student"]._replace(params=params)
        state = init_state(stage, variables, tx, jax.random.key(0))
        run = lambda p: step(
            state.replace(params=p), variables.frozen, {"teacher": upstream}, batch
        )
        after, _ = run(params)
        for name in ("in", "out"):
            shape = params[name]["kernel"].shape
            move = np.random.default_rng(1).normal(size=shape)

            def loss(h, name=name, move=move):
                kernel = params[name]["kernel"] + h * move
                moved = params | {name: params[name] | {"kernel": kernel}}
                return run(moved)[1]["loss"]

            numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5
            change = params[name]["kernel"] - after.params[name]["kernel"]
            np.testing.assert_allclose((change * move).sum(), numeric, rtol=1e-6)


@pytest.mark.parametrize("accumulate", [4, pytest.param(1, marks=SLOW)])
def test_a_cached_teacher_is_the_teacher(accumulate):
    system = toy.make_system()
    stage = system.stages[1]
    step, state, frozen, made = one_step(system, stage, accumulate=accumulate)
    batch = toy.make_batch()
    teacher = system.stages[0]
    forward = functools.partial(teacher.forward, train=False, key=None)
    tensors, _ = jax.jit(forward)(made["teacher"], batch, {})
    cached = batch | {"cache": {"teacher": {"logits": np.asarray(tensors["logits"])}}}
    want, _ = step(state, frozen, made, batch)
    got, _ = step(state, frozen, {}, cached)
    for x, y in zip(*map(jax.tree.leaves, (got.params, want.params)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_only_the_stages_that_are_read_run():
    def explode(*args, **kwargs):
        raise AssertionError("ran a stage that nothing reads")

    system = toy.make_system()
    stage = system.stages[1]._replace(terms=system.stages[1].terms[:1])
    teacher = system.stages[0]._replace(forward=explode)
    system = system._replace(stages=(teacher, stage))
    step, state, frozen, made = one_step(system, stage)
    _, metrics = step(state, frozen, made, toy.make_batch())
    assert np.isfinite(metrics["loss"])


def test_needs_reach_forward_through_a_cached_stage():
    """The student needs the middle stage; its own need of the teacher is resolved."""

    def middle(variables, batch, upstream, *, train, key):
        assert key is None
        assert not train
        return {"twice": 2 * upstream["teacher"]["embedding"], "spare": 0.0}, {}

    def student(variables, batch, upstream, *, train, key):
        assert upstream.keys() == {"middle"}
        assert upstream["middle"].keys() == {"twice"}
        value = variables.params["w"] * upstream["middle"]["twice"]
        return {"value": jnp.sum(value, axis=-1)}, variables.state

    toy_system = toy.make_system()
    init = lambda key, batch, earlier: Variables({"w": jnp.ones(4)}, {}, {})
    stages = (
        toy_system.stages[0],
        Stage("middle", init, middle, (), needs=("teacher.embedding",)),
        Stage(
            "student",
            init,
            student,
            (Term("value", lambda x: x, ("student.value",)),),
            needs=("middle.twice",),
        ),
    )
    system = toy_system._replace(stages=stages)
    batch = toy.make_batch()
    made = toy.make_variables(system)
    tx = optax.sgd(1.0)
    step = jax.jit(make_train_step(system, "student", tx))
    state = init_state(stages[2], made["student"], tx, jax.random.key(0))
    forward = functools.partial(toy_system.stages[0].forward, train=False, key=None)
    tensors, _ = jax.jit(forward)(made["teacher"], batch, {})
    want = 2 * np.mean(tensors["embedding"], axis=0)
    after, _ = step(state, {}, made, batch)
    np.testing.assert_allclose(1 - after.params["w"], want, rtol=1e-4, atol=1e-6)
    cached = batch | {"cache": {"middle": {"twice": 2 * tensors["embedding"]}}}
    again, _ = step(state, {}, {}, cached)
    np.testing.assert_allclose(again.params["w"], after.params["w"], rtol=1e-6)
    with pytest.raises(ValueError, match="neither in upstream nor"):
        step(state, {}, {}, batch)
    with pytest.raises(ValueError, match="'middle' gives x; 'student' reads twice"):
        step(state, {}, {}, batch | {"cache": {"middle": {"x": tensors["embedding"]}}})


def test_weights_are_inputs_of_one_compilation():
    system = toy.make_system()
    stage = system.stages[1]
    tx = optax.sgd(0.3)
    spread = RUNNERS["single"](lambda axis: make_train_step(system, "student", tx))
    made = toy.make_variables(system)
    after = []
    for weights in (None, {"kd": 0.0}, {"clip": 0.0, "kd": 1.0}):
        state = init_state(
            stage, made["student"], tx, jax.random.key(0), weights=weights
        )
        state = spread.place(state)
        for i in range(2):
            batch = spread.put(toy.make_batch(16, i))
            state, metrics = spread.step(state, made["student"].frozen, made, batch)
        after.append(float(metrics["loss"]))
        used = {"clip": 0.5, "kd": 0.5} | (weights or {})
        want = sum(w * metrics[f"raw/{name}"] for name, w in used.items())
        np.testing.assert_allclose(metrics["loss"], want, rtol=1e-6)
    assert len(set(after)) == 3
    assert spread.step._cache_size() == 1


def test_weights_that_name_no_term():
    system = toy.make_system()
    variables = toy.make_variables(system)["student"]
    make = lambda stage, weights: init_state(
        stage, variables, optax.sgd(1.0), jax.random.key(0), weights=weights
    )
    with pytest.raises(ValueError, match="no term of constant weight ot; it has clip"):
        make(system.stages[1], {"ot": 1.0})
    clip = system.stages[1].terms[0]._replace(weight=optax.constant_schedule(1.0))
    with pytest.raises(ValueError, match="constant weight clip; it has none"):
        make(system.stages[1]._replace(terms=(clip,)), {"clip": 1.0})


def test_schedules_and_a_balancer_act():
    system = toy.make_system()
    stage = system.stages[1]
    kd = stage.terms[1]._replace(weight=optax.linear_schedule(1.0, 0.0, 2))
    stage = stage._replace(terms=(stage.terms[0], kd))
    system = replace_stage(system, stage)
    balancer, tx = fixed({"clip": 4.0}), optax.sgd(0.1)
    made = toy.make_variables(system)
    state = init_state(stage, made["student"], tx, jax.random.key(0), balancer=balancer)
    assert state.weights.keys() == {"clip"}
    step = jax.jit(make_train_step(system, "student", tx, balancer=balancer))
    for weight in (1.0, 0.5, 0.0):
        state, m = step(state, made["student"].frozen, made, toy.make_batch())
        np.testing.assert_allclose(m["weighted/clip"], 2 * m["raw/clip"], rtol=1e-6)
        np.testing.assert_allclose(m["weighted/kd"], weight * m["raw/kd"], rtol=1e-6)
    assert float(state.balancer["clip"]) == 4.0


def draws(runner, accumulate, steps=2):
    """The keys that `forward` sees, as numbers: (shared, local) an example."""

    def forward(variables, batch, upstream, *, train, key):
        ones = jnp.ones_like(batch["label"], jnp.float32)
        return {
            "shared": variables.params["w"] * ones * jax.random.uniform(key.shared),
            "local": variables.params["w"] * ones * jax.random.uniform(key.local),
        }, {"shared": jax.random.uniform(key.shared), "local": ones[0]}

    init = lambda key, batch, earlier: Variables(
        {"w": jnp.ones(())}, {}, {"shared": jnp.zeros(()), "local": jnp.zeros(())}
    )
    seen = []

    def keep(shared, local, axis_name=None):
        if axis_name is not None:
            shared, local = jax.lax.all_gather((shared, local), axis_name, tiled=True)
        jax.debug.callback(lambda *x: seen.append(np.stack(x)), shared, local)
        return 0 * shared[: len(shared) // (4 if axis_name else 1)]

    terms = (Term("keep", keep, ("s.shared", "s.local")),)
    stage = Stage("s", init, forward, terms)
    system = toy.make_system()._replace(stages=(stage,))
    run(system, "s", runner, accumulate, steps)
    jax.effects_barrier()
    return np.stack(seen)


@pytest.mark.parametrize(
    ("runner", "accumulate", "distinct"),
    [
        ("single", 2, 2),
        ("shard_map", 2, 8),
        pytest.param("single", 1, 1, marks=SLOW),
        pytest.param("pmap", 1, 4, marks=SLOW),
    ],
)
def test_keys_are_shared_or_local(runner, accumulate, distinct):
    seen = draws(runner, accumulate)
    firsts = {float(x[0].min()) for x in seen}
    assert firsts == {float(x[0].max()) for x in seen}
    assert len(firsts) == 2
    assert {len(np.unique(x[1])) for x in seen} == {distinct}
    assert len(np.unique(seen[:, 1])) == 2 * distinct


@pytest.mark.parametrize(
    "runner", ["shard_map", *(pytest.param(r, marks=SLOW) for r in ("single", "mesh"))]
)
def test_lowers_for_tpu_and_cuda(runner):
    system = toy.make_system(dropout=0.1)
    stage, tx = system.stages[1], make_optimiser(OptimConfig(), 10)
    spread = RUNNERS[runner](
        lambda axis: make_train_step(
            system, "student", tx, axis_name=axis, accumulate=2
        )
    )
    made = toy.make_variables(system)
    state = init_state(stage, made["student"], tx, jax.random.key(0))
    args = spread.place((state, made["student"].frozen, made))
    batch = spread.put(toy.make_batch())
    exported = jax.export.export(spread.step, platforms=("tpu", "cuda"))(*args, batch)
    assert exported.platforms == ("tpu", "cuda")


def test_a_state_outlives_the_donation_of_its_copy():
    system = toy.make_system()
    stage, tx = system.stages[1], optax.sgd(0.3)
    variables, key = toy.make_variables(system)["student"], jax.random.key(0)
    spread = RUNNERS["single"](lambda axis: make_train_step(system, "student", tx))
    made = toy.make_variables(system)
    for _ in range(2):
        state = spread.place(init_state(stage, variables, tx, key))
        batch = spread.put(toy.make_batch())
        spread.step(state, variables.frozen, made, batch)


def test_bad_arguments():
    system = toy.make_system()
    tx = optax.sgd(1.0)
    with pytest.raises(ValueError, match="got 0"):
        make_train_step(system, "student", tx, accumulate=0)
    bare = replace_stage(system, system.stages[0]._replace(terms=()))
    with pytest.raises(ValueError, match="no terms"):
        make_train_step(bare, "teacher", tx)
    with pytest.raises(ValueError, match="no multiple of accumulate=3"):
        run(system, accumulate=3, steps=1)


@pytest.mark.parametrize("runner", ["pmap", "shard_map", "mesh"])
def test_a_batch_that_cannot_be_split(runner):
    with pytest.raises(InputError, match="batch of 18 .* over 4 devices"):
        run(toy.make_system(), runner=runner, steps=1, size=18)


def test_runner_names_and_batch_shapes():
    make_step = lambda axis: make_train_step(toy.make_system(), "student", optax.sgd(1))
    assert make_runner("auto", make_step).num_devices == 4
    assert make_runner("auto", make_step, jax.devices()[:1]).num_devices == 1
    with pytest.raises(InputError, match="no runner 'tpu'"):
        make_runner("tpu", make_step)
    with pytest.raises(ValueError, match=r"first axes \[\(2,\), \(3,\)\]"):
        batch_size({"x": np.ones(2), "y": np.ones((3, 1))}, 1)
