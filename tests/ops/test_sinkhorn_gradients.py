"""Derivatives of Sinkhorn: each against differences of the value that it is of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.ops import sinkhorn
from tests.oracles import sinkhorn as oracle
from tests.support.sinkhorn_problems import clusters, plan_of, solver, uniform

RATIOS = (10, 131, 1000)
SLOW = pytest.mark.slow


@functools.cache
def differentiated(**options):
    fn = lambda cost, epsilon, weights: sinkhorn(
        cost, epsilon=epsilon, **weights, **options
    ).cost.sum()
    return jax.jit(jax.grad(fn))


def gradient(cost, epsilon, weights=None, **options):
    return differentiated(**options)(cost, epsilon, weights or {})


def differences(cost, a, b, epsilon, num_iters, value):
    fn = lambda c: oracle.value(c, a, b, epsilon, num_iters, value)
    # The cube root of float64's rounding, at the scale on which the plan changes.
    return oracle.numeric_gradient(fn, cost, 1e-5 * epsilon)


@pytest.mark.parametrize("value", ["transport", "entropic", "kl"])
def test_envelope_is_the_derivative_of_kl(value):
    with jax.enable_x64(True):
        cost, a, b = np.random.default_rng(0).random((6, 4)), uniform(6), uniform(4)
        got = gradient(cost, 0.1, num_iters=200, value=value, gradient="envelope")
        for name in ("kl", "entropic"):
            want = differences(cost, a, b, 0.1, 200, name)
            np.testing.assert_allclose(got, want, atol=1e-8)
        plan = plan_of(cost, solver(num_iters=200)(cost, 0.1), epsilon=0.1)
        np.testing.assert_allclose(got, plan, rtol=1e-10)


@pytest.mark.parametrize(
    "shape",
    [(6, 4), (1, 4), *(pytest.param(s, marks=SLOW) for s in ((3, 7), (5, 1), (5, 5)))],
)
def test_implicit_is_the_derivative_at_convergence(shape):
    names = ("transport", "entropic", "kl") if shape == (6, 4) else ("transport",)
    with jax.enable_x64(True):
        cost = np.random.default_rng(1).random(shape)
        rng = np.random.default_rng(2)
        a, b = rng.random(shape[0]) + 0.2, rng.random(shape[1]) + 0.2
        a, b = a / a.sum(), b / b.sum()
        weights = {"row_weights": a, "column_weights": b}
        for value in names:
            options = {"num_iters": 200, "value": value, "gradient": "implicit"}
            got = gradient(cost, 0.1, weights, **options)
            want = differences(cost, a, b, 0.1, 200, value)
            np.testing.assert_allclose(got, want, atol=1e-7)


@pytest.mark.parametrize(
    ("num_iters", "value"),
    [
        (27, "transport"),
        (3, "kl"),
        pytest.param(1, "transport", marks=SLOW),
        pytest.param(20, "transport", marks=SLOW),
        pytest.param(27, "entropic", marks=SLOW),
    ],
)
def test_unrolled_is_the_derivative_of_the_iterations(num_iters, value):
    with jax.enable_x64(True):
        cost, a, b = np.random.default_rng(3).random((5, 4)), uniform(5), uniform(4)
        options = {"num_iters": num_iters, "value": value, "gradient": "unrolled"}
        for epsilon in (0.5, 0.02, 2e-4):  # the last one goes through the log domain
            got = gradient(cost, epsilon, **options)
            want = differences(cost, a, b, epsilon, num_iters, value)
            np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())


@pytest.mark.slow
def test_before_convergence_implicit_and_unrolled_differ():
    with jax.enable_x64(True):
        cost = clusters(8, 6).astype(np.float64)
        epsilon = cost.max() / 300
        kinds = ("implicit", "unrolled")
        early, late = (
            [gradient(cost, epsilon, num_iters=n, gradient=k) for k in kinds]
            for n in (5, 3000)
        )
        np.testing.assert_allclose(*late, atol=1e-6)
        assert np.abs(early[0] - early[1]).max() > 1e-3


@pytest.mark.parametrize(
    "kind", ["implicit", "unrolled", pytest.param("envelope", marks=SLOW)]
)
def test_float32_gradients_up_to_a_sharpness_of_1000(kind):
    rng = np.random.default_rng(5)
    cost = (rng.random((16, 10)) ** 2).astype(np.float32)
    for ratio in RATIOS:
        compare_with_float64(cost, ratio, num_iters=300, gradient=kind)


@pytest.mark.slow
def test_float32_unrolled_gradients_of_slow_problems():
    cost = clusters(20, 12, seed=6)
    for ratio in RATIOS:
        compare_with_float64(cost, ratio, num_iters=60, gradient="unrolled")


def compare_with_float64(cost, ratio, **options):
    epsilon = float(cost.max() / ratio)
    got = gradient(cost, epsilon, **options)
    with jax.enable_x64(True):
        want = gradient(cost.astype(np.float64), epsilon, **options)
    got, want = np.asarray(got), np.asarray(want)
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    # float32 holds C / epsilon to 6e-8 of the ratio, and the plan to no better.
    assert error < 2e-5 + 1e-6 * ratio


def memory(cost, num_iters, kind):
    """Returns the bytes of temporaries, those of both domains."""
    options = {"num_iters": num_iters, "gradient": kind}
    fn = lambda cost: sinkhorn(cost, epsilon=1.0, **options).cost
    compiled = jax.jit(jax.value_and_grad(fn)).lower(cost).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimised
@pytest.mark.parametrize("kind", ["envelope", "implicit"])
def test_memory_does_not_grow_with_the_iterations(kind):
    cost = clusters(64, 32)
    assert memory(cost, 400, kind) < memory(cost, 40, kind) + 1024


@pytest.mark.optimised
def test_unrolled_memory_grows_by_vectors():
    cost = clusters(64, 32)
    vectors = 4 * (64 + 32)
    matrix = 4 * 64 * 32
    growth = (memory(cost, 400, "unrolled") - memory(cost, 40, "unrolled")) / 360
    assert vectors / 2 < growth < 4 * vectors < matrix


def test_only_the_cost_carries_a_gradient():
    cost = clusters(4, 5)
    whole = lambda cost: sinkhorn(cost, epsilon=1.0)
    both = jax.jit(jax.grad(lambda c: sum(jnp.sum(x) for x in whole(c))))(cost)
    alone = jax.jit(jax.grad(lambda c: whole(c).cost))(cost)
    np.testing.assert_array_equal(both, alone)
