"""The same problem by ott-jax: an oracle, and a solver to compare with."""

import functools

import jax
import jax.numpy as jnp

from eegkd.typing import Array


def solve_by_ott(
    cost: Array,
    a: Array,
    b: Array,
    epsilon: Array,
    num_iters: int,
    value: str,
    gradient: str,
) -> tuple[Array, Array, Array, Array]:
    """Returns potentials in units of epsilon, values and marginal errors.

    Its iterations update g, then f, from f = 0; only converged ones compare with ours.
    """
    if num_iters % 10:
        raise ValueError(
            f"ott-jax iterates in blocks of 10: num_iters is a multiple of it; got "
            f"{num_iters}."
        )
    if gradient == "unrolled":
        raise ValueError(
            "ott-jax's unrolled derivative is wrong at a fixed number of iterations: "
            "use solver='scaling', or gradient='implicit'."
        )
    solve = functools.partial(
        _solve_one, num_iters=num_iters, value=value, gradient=gradient
    )
    return jax.vmap(solve)(cost, a, b, epsilon)


def _solve_one(cost, a, b, epsilon, *, num_iters: int, value: str, gradient: str):
    from ott.geometry import geometry
    from ott.solvers import linear
    from ott.solvers.linear import implicit_differentiation, sinkhorn

    alive = jnp.sum(a) > 0
    # A problem without weights would be NaN, and so would its gradient.
    a, b = (jnp.where(alive, w, 1 / w.shape[0]) for w in (a, b))
    out: sinkhorn.SinkhornOutput = linear.solve(  # type: ignore[assignment]
        geometry.Geometry(cost_matrix=cost, epsilon=epsilon),
        a=a,
        b=b,
        min_iterations=num_iters,
        max_iterations=num_iters,
        # Balanced problems have a null vector, the constant: its solver fails on it.
        implicit_diff=implicit_differentiation.ImplicitDiff(
            solver_kwargs={"ridge_kernel": 1e-2}
        ),
    )
    transport, kl = out.primal_cost, out.reg_ot_cost
    values = {"transport": transport, "entropic": out.ent_reg_cost, "kl": kl}[value]
    exact = gradient == "implicit" and value == "transport"
    carrier = transport if exact else kl
    values = jax.lax.stop_gradient(values - carrier) + carrier
    error = sum(
        jnp.sum(jnp.abs(out.marginal(axis) - weight))
        for axis, weight in ((1, a), (0, b))
    )
    f, g = out.f / epsilon, out.g / epsilon
    return f, g, jnp.where(alive, values, 0), jnp.where(alive, error, 0)
