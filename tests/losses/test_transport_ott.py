"""Transport between tokens against ott-jax itself, where both are converged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.losses import token_ot, token_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*NormalCG"),  # ott-jax calls it itself
]
NIGHTLY = pytest.mark.nightly
NUM_ITERS = 20_000
KINDS = ("envelope", "implicit", "unrolled")
SETS = ("gaussian", "clustered")


def tokens(name, n=12, m=7):
    rng = np.random.default_rng(0)
    if name == "gaussian":
        return rng.normal(size=(n, 8)), rng.normal(size=(m, 8))
    centres = 3 * rng.normal(size=(4, 3))
    draw = lambda k: centres[rng.integers(0, 4, k)] + 0.3 * rng.normal(size=(k, 3))
    return draw(n), draw(m)


def largest_cost(x, y):
    return ((x[:, None] - y) ** 2).sum(-1).max()


@functools.cache
def ours(kind):
    value = "kl" if kind == "envelope" else "transport"
    options = {"num_iters": NUM_ITERS, "value": value, "gradient": kind}
    fn = lambda x, y, epsilon: token_ot(x[None], y[None], epsilon=epsilon, **options)[0]
    return jax.jit(jax.value_and_grad(fn, (0, 1)))


@functools.cache
def otts(kind):
    """Returns ott-jax's value and gradients of one kind, as its documentation has it.

    Differentiated as it is unrolled, its iterations may not be as many at least as at
    most: the gradient is wrong then.
    """
    from ott.geometry import costs, pointcloud
    from ott.solvers import linear
    from ott.solvers.linear import implicit_differentiation

    options = {"min_iterations": NUM_ITERS, "max_iterations": NUM_ITERS}
    if kind == "unrolled":
        options |= {"implicit_diff": None, "min_iterations": NUM_ITERS - 10}
    else:
        # Balanced problems have a null vector, the constant: its solver fails on it.
        options["implicit_diff"] = implicit_differentiation.ImplicitDiff(
            solver_kwargs={"ridge_kernel": 1e-2}
        )

    def fn(x, y, epsilon):
        geometry = pointcloud.PointCloud(
            x, y, cost_fn=costs.SqEuclidean(), epsilon=epsilon
        )
        out = linear.solve(geometry, **options)
        return out.reg_ot_cost if kind == "envelope" else out.primal_cost

    return jax.jit(jax.value_and_grad(fn, (0, 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "ratio", [131, *(pytest.param(r, marks=NIGHTLY) for r in (10, 1000))]
)
def test_values_and_gradients(kind, name, ratio):
    with jax.enable_x64(True):
        x, y = tokens(name)
        epsilon = largest_cost(x, y) / ratio
        plan = token_plan(x[None], y[None], epsilon=epsilon, num_iters=NUM_ITERS)[1]
        assert plan.error[0] < 1e-12
        value, grads = ours(kind)(x, y, epsilon)
        want, wanted = otts(kind)(x, y, epsilon)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        for grad, other in zip(grads, wanted, strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(grad, other, atol=1e-6 * scale)


@NIGHTLY
def test_values_at_a_sharpness_of_10_000():
    with jax.enable_x64(True):
        x, y = tokens("gaussian")
        epsilon = largest_cost(x, y) / 10_000
        for kind in ("envelope", "implicit"):
            value, grads = ours(kind)(x, y, epsilon)
            np.testing.assert_allclose(value, otts(kind)(x, y, epsilon)[0], rtol=1e-6)
            assert all(np.all(np.isfinite(grad)) for grad in grads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gaussian", pytest.param("clustered", marks=NIGHTLY)])
def test_float32_is_finite_at_a_sharpness_of_10_000(kind, name):
    x, y = (z.astype(np.float32) for z in tokens(name, 60, 40))
    epsilon = float(largest_cost(x, y) / 10_000)
    fn = lambda x, y: token_ot(x[None], y[None], epsilon=epsilon, gradient=kind)[0]
    value, grads = jax.jit(jax.value_and_grad(fn, (0, 1)))(jnp.asarray(x), y)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(grad)) for grad in grads)
    with jax.enable_x64(True):
        want = token_ot(*(z[None].astype(np.float64) for z in (x, y)), epsilon=epsilon)
    # 100 iterations are not converged, in either; they are the same ones.
    np.testing.assert_allclose(value, want[0], rtol=1e-4)
