"""Values of Sinkhorn: against plain float64, exact transport, and ott-jax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from eegkd.ops import sinkhorn
from tests.oracles import sinkhorn as oracle
from tests.support.sinkhorn_problems import clusters, plan_of, solver, uniform

VALUES = ("transport", "entropic", "kl")
SLOW = pytest.mark.slow
OTT = pytest.mark.filterwarnings("ignore:.*NormalCG")  # ott-jax calls it itself
HARD = pytest.mark.parametrize("ratio", [10, 131, 1000, 10_000])


@HARD
def test_values_at_any_sharpness(ratio):
    cost, epsilon = clusters(24, 10, ratio=ratio)
    rtol = 1e-5
    want = oracle.values(cost, uniform(24), uniform(10), epsilon, 95)
    plan = oracle.solve(cost, uniform(24), uniform(10), epsilon, 95)[2]
    for value in VALUES:
        got = solver(num_iters=95, value=value)(cost, epsilon)
        np.testing.assert_allclose(got.cost, want[value], rtol=rtol)
    error = np.abs(plan.sum(1) - 1 / 24).sum()
    np.testing.assert_allclose(got.error, error, atol=1e-5, rtol=1e-4)
    made = plan_of(cost, got, epsilon=epsilon)
    # From potentials alone, which float32 holds to 6e-8 of C / epsilon.
    np.testing.assert_allclose(made, plan, atol=1e-5 + 1e-7 * ratio)
    np.testing.assert_allclose(made.sum(0), 1 / 10, atol=1e-5 + 1e-7 * ratio)


@pytest.mark.parametrize(
    "num_iters", [1, 47, *(pytest.param(n, marks=SLOW) for n in (19, 40))]
)
def test_float64_is_exact_at_any_number_of_iterations(num_iters):
    with jax.enable_x64(True):
        for ratio in (10, 1000, 10_000):
            cost, epsilon = clusters(9, 13, seed=1, ratio=ratio)
            cost = cost.astype(np.float64)
            want = oracle.values(cost, uniform(9), uniform(13), epsilon, num_iters)
            got = solver(num_iters=num_iters)(cost, epsilon)
            np.testing.assert_allclose(got.cost, want["transport"], rtol=1e-9)


def test_a_lonely_far_column_does_not_underflow():
    # Its kernel column is zero in float32: products alone would give infinity.
    cost = np.abs(np.arange(5.0)[:, None] - np.array([0.0, 1.0, 2.0, 60.0]))
    cost = cost.astype(np.float32)
    want = oracle.values(cost, uniform(5), uniform(4), 0.1, 100)["transport"]
    got = solver(num_iters=100)(cost, 0.1).cost
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("shape", [(12, 12), (12, 6)])
def test_small_epsilon_tends_to_exact_transport(shape):
    cost = clusters(*shape, seed=3)
    a, b = map(uniform, shape)
    want = oracle.exact(cost, a, b)
    gaps = []
    for fraction in (0.3, 0.03, 0.003):
        epsilon = float(fraction * cost.mean())
        got = solver(num_iters=1000)(cost, epsilon)
        assert got.error < 0.02
        gaps.append(abs(got.cost - want) / want)
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 5e-3
    # Entropy is at most log(n m), so the minimum misses it by at most epsilon log(n m).
    kl = solver(num_iters=1000, value="kl")(cost, epsilon).cost
    assert want - 1e-3 < kl < want + epsilon * np.log(shape[0] * shape[1])


def test_large_epsilon_tends_to_the_product_measure():
    cost = clusters(6, 5)
    got = solver()(cost, 1e5)
    plan = plan_of(cost, got, epsilon=1e5)
    np.testing.assert_allclose(plan, 1 / 30, rtol=1e-3)
    np.testing.assert_allclose(got.cost, cost.mean(), rtol=1e-3)


@functools.cache
def both(gradient):
    def fn(cost, epsilon, weights):
        options = {"num_iters": 30, "gradient": gradient}
        plan = sinkhorn(cost, epsilon=epsilon, **weights, **options)
        return plan.cost, plan

    return jax.jit(jax.value_and_grad(fn, has_aux=True))


@pytest.mark.slow
@given(
    shape=st.sampled_from([(1, 1), (4, 5)]),
    ratio=st.sampled_from([0.0, 1.0, 50.0, 5000.0]),
    power=st.integers(-6, 6),
    gradient=st.sampled_from(["envelope", "implicit", "unrolled"]),
    seed=st.integers(0, 99),
)
@example(shape=(1, 1), ratio=5000.0, power=0, gradient="unrolled", seed=1)
@settings(max_examples=25, deadline=None)
def test_masked_is_trimmed_and_nothing_is_nan(shape, ratio, power, gradient, seed):
    rng = np.random.default_rng(seed)
    cost = 10.0**power * rng.random((7, 7)) ** 3
    cost = np.where(ratio == 0, 10.0**power, cost).astype(np.float32)
    epsilon = 10.0**power / max(ratio, 1)
    rows, columns = np.arange(7) < shape[0], np.arange(7) < shape[1]
    rows, columns = rng.permutation(rows), rng.permutation(columns)
    hidden = np.where(rows[:, None] & columns, cost, np.nan).astype(np.float32)
    masks = {"row_weights": rows, "column_weights": columns}
    (value, plan), grad = both(gradient)(hidden, epsilon, masks)
    (want, alone), wanted = both(gradient)(cost[rows][:, columns], epsilon, {})
    np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-6 * epsilon)
    np.testing.assert_allclose(plan.error, alone.error, atol=1e-5)
    assert np.all(np.isfinite(grad))
    np.testing.assert_array_equal(grad[~rows], 0)
    np.testing.assert_array_equal(grad[:, ~columns], 0)
    # A plan is exp((f + g - C) / epsilon): the three, each rounded to float32 at the
    # size of the costs, move it by no more than this share (1e-5 at a ratio of 50).
    rounding = 2 * ratio * np.finfo(np.float32).eps
    rtol = max(1e-4, rounding)
    np.testing.assert_allclose(grad[rows][:, columns], wanted, atol=1e-5, rtol=rtol)
    np.testing.assert_array_equal(np.isneginf(plan.f), ~rows)


@OTT
@pytest.mark.parametrize(
    "solver", ["scaling", pytest.param("ott", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("gradient", ["envelope", "implicit"])
def test_a_problem_without_weights_is_zero(solver, gradient):
    cost = clusters(5, 4, shape=(3,))
    mask = np.array([[True] * 5, [False] * 5, [True] * 5])

    def fn(cost, mask):
        plan = sinkhorn(
            cost,
            epsilon=1.0,
            num_iters=50,
            row_weights=mask,
            gradient=gradient,
            solver=solver,
        )
        return plan.cost.sum(), plan

    run = jax.jit(jax.value_and_grad(fn, has_aux=True))
    (_, plan), grad = jax.device_get(run(cost, mask))
    assert plan.cost[1] == plan.error[1] == 0
    np.testing.assert_array_equal(grad[1], 0)
    # Three again, so that one program serves both.
    others = [0, 2, 2]
    (_, want), wanted = run(cost[others], mask[others])
    np.testing.assert_allclose(plan.cost[others], want.cost, rtol=1e-6)
    np.testing.assert_allclose(grad[others], wanted, rtol=1e-4, atol=1e-6)


def test_weights_are_those_of_repeated_tokens():
    cost = clusters(4, 5)
    counts = np.array([1, 3, 2, 1])
    run = jax.jit(functools.partial(sinkhorn, epsilon=1.0))
    want = run(np.repeat(cost, counts, axis=0)).cost
    got = run(cost, row_weights=7.0 * counts).cost
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_permuting_tokens_permutes_the_plan():
    cost = clusters(8, 6, shape=(2,))
    order = np.random.default_rng(0).permutation(8)
    first = solver(num_iters=60)(cost, 0.5)
    second = solver(num_iters=60)(cost[:, order], 0.5)
    np.testing.assert_allclose(first.cost, second.cost, rtol=1e-5)
    np.testing.assert_allclose(first.f[:, order], second.f, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unrolled"])
def test_a_batch_is_its_problems_alone(gradient):
    # One of them is too sharp for products, so that the batch takes both ways. In
    # float64: in float32 the sharp one's unrolled gradient rounds to 6e-3 of itself,
    # and differently in another program.
    costs = clusters(7, 9, shape=(2, 2)).astype(np.float64)
    ratios = np.array([[100, 20], [1000, 50]])
    epsilons = costs.max(axis=(2, 3)) / ratios

    def fn(cost, epsilon):
        plan = sinkhorn(cost, epsilon=epsilon, num_iters=45, gradient=gradient)
        return plan.cost.sum(), plan

    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(fn, has_aux=True))
        (_, plan), grad = run(costs, epsilons)
        (_, mapped), mapped_grad = jax.jit(jax.vmap(jax.vmap(run)))(costs, epsilons)
        for at in np.ndindex(2, 2):
            (_, alone), grad_alone = run(costs[at], epsilons[at])
            for several, grads in ((plan, grad), (mapped, mapped_grad)):
                np.testing.assert_allclose(several.cost[at], alone.cost, rtol=1e-10)
                np.testing.assert_allclose(grads[at], grad_alone, atol=1e-9)


@pytest.mark.slow
def test_devices_share_a_batch():
    costs = clusters(7, 9, shape=(4,))

    def fn(cost):
        plan = sinkhorn(cost, epsilon=1.0, num_iters=30, gradient="implicit")
        return plan.cost.sum()

    want = jax.grad(fn)(costs)
    by_pmap = jax.pmap(jax.grad(fn))(costs[:, None])[:, 0]
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("i")
    mapped = jax.shard_map(
        jax.grad(fn), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    for got in (by_pmap, jax.jit(mapped)(costs)):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)


@OTT
@pytest.mark.parametrize("ratio", [100, pytest.param(10, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    ("value", "gradient"),
    [pytest.param(v, g, marks=SLOW) for v in VALUES for g in ("envelope", "implicit")],
)
def test_equals_ott_where_both_are_converged(value, gradient, ratio):
    with jax.enable_x64(True):
        cost = np.random.default_rng(0).random((2, 12, 7))
        fn = lambda cost, solver: sinkhorn(
            cost,
            epsilon=1 / ratio,
            num_iters=2000,
            value=value,
            gradient=gradient,
            solver=solver,
        ).cost.sum()
        run = jax.jit(jax.value_and_grad(fn), static_argnums=1)
        got, want = run(cost, "scaling"), run(cost, "ott")
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
        scale = np.abs(want[1]).max()
        np.testing.assert_allclose(got[1], want[1], atol=1e-6 * scale)


def test_half_precision_is_raised():
    cost = clusters(5, 4).astype(jnp.bfloat16)
    run = jax.jit(functools.partial(sinkhorn, epsilon=1.0))
    got = run(cost)
    assert {x.dtype for x in got} == {np.dtype(np.float32)}
    want = run(cost.astype(np.float32))
    np.testing.assert_array_equal(got.cost, want.cost)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "above zero; got 0.0"),
        ({"epsilon": -1}, "above zero; got -1"),
        ({"epsilon": np.ones(3)}, r"one a problem, \(2,\); got \(3,\)"),
        ({"num_iters": 0}, "num_iters is a whole number above zero; got 0"),
        ({"num_iters": 2.5}, "num_iters is a whole number above zero; got 2.5"),
        ({"value": "sharp"}, "value is one of 'transport', .* got 'sharp'"),
        ({"gradient": "exact"}, "gradient is one of 'envelope', .* got 'exact'"),
        ({"solver": "pot"}, "solver is one of 'scaling', 'ott'; got 'pot'"),
        ({"row_weights": np.ones((2, 5))}, r"shape \(2, 4\); got \(2, 5\)"),
        ({"solver": "ott", "num_iters": 15}, "multiple of it; got 15"),
        ({"solver": "ott", "gradient": "unrolled"}, "use solver='scaling'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(jnp.ones((2, 4, 5)), **{"epsilon": 1.0} | options)


def test_a_cost_without_pairs_is_refused():
    with pytest.raises(ValueError, match=r"at least; got \(2, 0, 4\)"):
        sinkhorn(jnp.ones((2, 0, 4)), epsilon=1.0)
