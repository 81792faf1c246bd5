"""Entropic transport in JAX: ours, and ott-jax in both its modes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.losses import token_ot
from eegkd.ops.pairwise import pairwise_sqeuclidean
from experiments.benchmarks.timing import Runner, compile_jax

NUM_ITERS = 100
KINDS = ("envelope", "implicit", "unrolled")


class Case(NamedTuple):
    """Token sets [batch, n, width] and [batch, m, width], and epsilon.

    Attributes:
        ratio: The largest cost over epsilon; None is 0.05 of the mean cost for epsilon.
    """

    name: str
    batch: int
    n: int
    m: int
    width: int = 64
    ratio: float | None = None


class Tokens(NamedTuple):
    """Arrays of a case."""

    x: np.ndarray
    y: np.ndarray
    epsilon: float


def make_tokens(case: Case) -> Tokens:
    """Draws unit tokens, or clustered ones in 3-d, which converge slowly."""
    rng = np.random.default_rng(0)
    shapes = (case.batch, case.n, case.width), (case.batch, case.m, case.width)
    if case.ratio is None:
        x, y = (rng.normal(size=shape) for shape in shapes)
        x, y = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))
    else:
        centres = 3 * rng.normal(size=(4, case.width))
        x, y = (
            centres[rng.integers(0, 4, shape[:2])] + 0.3 * rng.normal(size=shape)
            for shape in shapes
        )
    x, y = x.astype(np.float32), y.astype(np.float32)
    cost = np.asarray(pairwise_sqeuclidean(jnp.asarray(x), jnp.asarray(y)))
    ratio = case.ratio
    epsilon = 0.05 * cost.mean() if ratio is None else cost.max() / ratio
    return Tokens(x, y, float(epsilon))


def make_all(tokens: Tokens) -> dict[tuple[str, str], Runner]:
    """Compiles ours and both modes of ott-jax, by name and kind of gradient."""
    losses: dict[tuple[str, str], Callable[..., Any]] = {
        ("eegkd", kind): _ours(kind) for kind in KINDS
    }
    for kind in KINDS[:2]:  # its unrolled gradient is wrong at fixed iterations
        for mode, lse_mode in (("log", True), ("exp", False)):
            losses[f"ott {mode}", kind] = _ott(kind, lse_mode=lse_mode)
    return {key: _compile(loss, tokens) for key, loss in losses.items()}


def reference(kind: str, tokens: Tokens) -> list[np.ndarray]:
    """Computes both gradients of a kind in float64, by ours."""
    x, y = (z.astype(np.float64) for z in tokens[:2])
    with jax.enable_x64(True):
        total = lambda x, y: jnp.sum(_ours(kind)(x, y, tokens.epsilon))
        return [np.asarray(grad) for grad in jax.jit(jax.grad(total, (0, 1)))(x, y)]


def _compile(loss: Callable[..., Any], tokens: Tokens) -> Runner:
    total = lambda x, y: jnp.sum(loss(x, y, tokens.epsilon))
    return compile_jax(total, jnp.asarray(tokens.x), jnp.asarray(tokens.y))


def _ours(kind: str) -> Callable[..., Any]:
    """Returns our loss; "envelope" differentiates the value it is of."""
    value = "kl" if kind == "envelope" else "transport"
    return functools.partial(_token_ot, value=value, gradient=kind)


def _token_ot(x, y, epsilon, **options):
    return token_ot(x, y, epsilon=epsilon, num_iters=NUM_ITERS, **options)


def _ott(kind: str, *, lse_mode: bool) -> Callable[..., Any]:
    from ott.geometry import costs, pointcloud
    from ott.solvers import linear
    from ott.solvers.linear import implicit_differentiation

    # Balanced problems have a null vector, the constant: without a ridge its linear
    # solver fails on slow ones.
    by_system = implicit_differentiation.ImplicitDiff(
        solver_kwargs={"ridge_kernel": 1e-2}
    )

    def one(x, y, epsilon):
        geometry = pointcloud.PointCloud(
            x, y, cost_fn=costs.SqEuclidean(), epsilon=epsilon
        )
        out = linear.solve(
            geometry,
            lse_mode=lse_mode,
            min_iterations=NUM_ITERS,
            max_iterations=NUM_ITERS,
            implicit_diff=by_system,
        )
        return out.reg_ot_cost if kind == "envelope" else out.primal_cost

    return jax.vmap(one, in_axes=(0, 0, None))
