"""Entropic optimal transport between weighted sets, at a fixed number of iterations."""

import functools
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.sinkhorn_gradients import implicit_gradient, unrolled_gradient
from eegkd.ops.sinkhorn_iterations import Block, Problem, divide, finish, iterate
from eegkd.ops.sinkhorn_ott import solve_by_ott
from eegkd.typing import Array, Bool, Float

Value: TypeAlias = Literal["transport", "entropic", "kl"]
Gradient: TypeAlias = Literal["envelope", "implicit", "unrolled"]
Solver: TypeAlias = Literal["scaling", "ott"]
Weights: TypeAlias = Float[Array, "*b n"] | Bool[Array, "*b n"]


class Plan(NamedTuple):
    """The solution of a batch of problems; `transport_plan` makes the matrix of it.

    Attributes:
        f: Potentials of the rows, -inf where the weight is zero; no gradient.
        g: Potentials of the columns, likewise.
        cost: The value asked for, one per problem; it alone carries the gradient.
        error: By how much the plan's marginals miss the weights, summed absolutely;
            no gradient. Log it: a fixed number of iterations need not converge.
    """

    f: Float[Array, "*b n"]
    g: Float[Array, "*b m"]
    cost: Float[Array, "*b"]
    error: Float[Array, "*b"]


def sinkhorn(
    cost: Float[Array, "*b n m"],
    *,
    epsilon: float | Float[Array, "*b"],
    num_iters: int = 100,
    row_weights: Weights | None = None,
    column_weights: Weights | None = None,
    value: Value = "transport",
    gradient: Gradient = "envelope",
    solver: Solver = "scaling",
) -> Plan:
    """Solves `min_P <P, C> + epsilon sum_ij P_ij log P_ij` with marginals a and b.

    Each iteration updates f, then g, from g = 0, and the plan is
    `P_ij = exp((f_i + g_j - C_ij) / epsilon)`; its columns sum to b exactly.

    Args:
        cost: C. Values where a weight is zero are not read, NaN included.
        epsilon: Above zero, in the cost's units; one for all or one per problem.
        num_iters: How many iterations; a multiple of 10 for ott-jax.
        row_weights: a, made to sum to one here; uniform unless given. A mask will do.
        column_weights: b, likewise.
        value: What `cost` of the result is. "transport": <P, C>; "entropic":
            `<P, C> + epsilon sum P log P`; "kl": `<P, C> + epsilon KL(P | a b^T)`. The
            last two are dual values, which reach the minimum from below.
        gradient: By what the value is differentiated. "envelope": the plan held fixed,
            `d value = <P, dC>`, which at convergence is the derivative of "kl" and of
            "entropic"; under "transport" it is the descent direction of "kl".
            "implicit": the derivative of the value at convergence. "unrolled": that of
            the value after `num_iters`, converged or not. Memory for the first two does
            not grow with `num_iters`, for "unrolled" by n + m numbers per iteration.
        solver: "scaling" is ours; "ott" is ott-jax, for comparison.

    Returns:
        Potentials, values and marginal errors. A problem without any weight on one side
        has value 0, no gradient and error 0: its example is masked, as a term's count
        has it.

    Raises:
        ValueError: If shapes, epsilon or a keyword do not fit.

    Example:
        >>> plan = sinkhorn(jnp.array([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
        >>> round(float(plan.cost), 6)
        4.5e-05

    Note:
        Iterations are products with a kernel into which potentials are absorbed, or
        log-sum-exps where the kernel would underflow; the batch decides, block by
        block, inside jit. Under `jax.vmap` both are computed: give a batch instead.

        Only `cost` is differentiated; epsilon and weights are constants. In float32,
        values hold up to `max(C) / epsilon` of 10,000 at least, "implicit" and
        "unrolled" gradients, in which numbers of that size cancel, up to 1,000.

    References:
        Cuturi, "Sinkhorn distances", 2013; Schmitzer, "Stabilized sparse scaling
        algorithms for entropy regularized transport problems", 2019, for absorption.
    """
    _check(cost, epsilon, num_iters, value, gradient, solver)
    cost = promote(cost)
    *batch, n, m = cost.shape
    flat, a, b = _flatten(cost, row_weights, column_weights)
    epsilon = jnp.broadcast_to(jnp.asarray(epsilon, flat.dtype), tuple(batch))
    epsilon = epsilon.reshape(-1)
    solve = {"scaling": _solve, "ott": solve_by_ott}[solver]
    f, g, values, error = solve(flat, a, b, epsilon, num_iters, value, gradient)
    f, g = (
        jnp.where(w > 0, p * epsilon[:, None], -jnp.inf) for w, p in ((a, f), (b, g))
    )
    f, g, error = jax.lax.stop_gradient((f, g, error))
    return Plan(
        f.reshape(*batch, n),
        g.reshape(*batch, m),
        values.reshape(batch),
        error.reshape(batch),
    )


def _flatten(
    cost: Array, row_weights: Weights | None, column_weights: Weights | None
) -> tuple[Array, Array, Array]:
    """Returns costs and weights with one leading axis; nothing where no weight is."""
    *batch, n, m = cost.shape
    flat = cost.reshape(-1, n, m)
    a = _weights(row_weights, (*batch, n), flat.dtype)
    b = _weights(column_weights, (*batch, m), flat.dtype)
    alive = (jnp.sum(a, axis=1) > 0) & (jnp.sum(b, axis=1) > 0)
    a, b = (jnp.where(alive[:, None], w, 0) for w in (a, b))
    flat = jnp.where((a > 0)[:, :, None] & (b > 0)[:, None, :], flat, 0)
    return flat, a, b


def transport_plan(
    cost: Float[Array, "*b n m"], plan: Plan, *, epsilon: float | Float[Array, "*b"]
) -> Float[Array, "*b n m"]:
    """Computes `P_ij = exp((f_i + g_j - C_ij) / epsilon)`, zero where weights are."""
    cost = promote(cost)
    epsilon = jnp.asarray(epsilon, cost.dtype)[..., None, None]
    there = jnp.isfinite(plan.f)[..., :, None] & jnp.isfinite(plan.g)[..., None, :]
    exponent = (plan.f[..., :, None] + plan.g[..., None, :] - cost) / epsilon
    return jnp.where(there, jnp.exp(jnp.where(there, exponent, 0)), 0)


class _Saved(NamedTuple):
    """Values that the derivative reads: the plan, or the iterations' results."""

    plan: Array
    problem: Problem | None
    blocks: tuple[Block, ...]
    f_bar: Array | None
    g_bar: Array | None


_Solution: TypeAlias = tuple[Array, Array, Array, Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _solve(
    cost: Array,
    a: Array,
    b: Array,
    epsilon: Array,
    num_iters: int,
    value: Value,
    gradient: Gradient,
) -> _Solution:
    """Returns potentials in units of epsilon, values and marginal errors."""
    return _solve_fwd(cost, a, b, epsilon, num_iters, value, "envelope")[0]


# Outside of jit too, the many small operations are one program per shape.
@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _solve_fwd(
    cost: Array,
    a: Array,
    b: Array,
    epsilon: Array,
    num_iters: int,
    value: Value,
    gradient: Gradient,
) -> tuple[_Solution, _Saved]:
    problem = Problem(cost / epsilon[:, None, None], a, b)
    unrolled = gradient == "unrolled"
    state, blocks = iterate(problem, num_iters, keep=unrolled)
    plan, f, g = finish(problem, state)
    transport = plan * problem.scaled
    if value == "transport":
        values = jnp.sum(transport, axis=(1, 2))
        bars = jnp.sum(transport, axis=2), jnp.sum(transport, axis=1)
    else:
        values = jnp.sum(f * a, axis=1) + jnp.sum(g * b, axis=1)
        bars = a, b
    if value == "kl":
        values = values + _entropy(a) + _entropy(b)
    error = _distance(plan, 2, a) + _distance(plan, 1, b)
    if unrolled:
        # The direct part, with the potentials held fixed, is that of <P, C> alone.
        direct = plan - transport if value == "transport" else 0 * plan
        saved = _Saved(direct, problem, blocks, *bars)
    else:
        saved = _Saved(plan, None, (), None, None)
    return (f, g, values * epsilon, error), saved


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _solve_bwd(
    num_iters: int, value: Value, gradient: Gradient, saved: _Saved, bars: _Solution
) -> tuple[Array, None, None, None]:
    del num_iters
    matrix = saved.plan
    problem, f_bar, g_bar = saved.problem, saved.f_bar, saved.g_bar
    if problem is not None and f_bar is not None and g_bar is not None:
        matrix = matrix + unrolled_gradient(problem, saved.blocks, f_bar, g_bar)
    elif gradient == "implicit" and value == "transport":
        matrix = implicit_gradient(matrix)
    return bars[2][:, None, None] * matrix, None, None, None


_solve.defvjp(_solve_fwd, _solve_bwd)


def _entropy(weight: Float[Array, "b n"]) -> Float[Array, " b"]:
    return -jnp.sum(weight * jnp.log(jnp.where(weight > 0, weight, 1)), axis=1)


def _distance(plan: Array, axis: int, weight: Array) -> Float[Array, " b"]:
    return jnp.sum(jnp.abs(jnp.sum(plan, axis=axis) - weight), axis=1)


def _weights(weights: Weights | None, shape: tuple[int, ...], dtype) -> Array:
    """Returns weights that sum to one per problem, or all zero where none is there."""
    if weights is None:
        return jnp.full((*shape[:-1], shape[-1]), 1 / shape[-1], dtype).reshape(
            -1, shape[-1]
        )
    if jnp.shape(weights) != shape:
        raise ValueError(f"Weights need shape {shape}; got {jnp.shape(weights)}.")
    weights = jnp.asarray(weights, dtype).reshape(-1, shape[-1])
    total = jnp.sum(weights, axis=1, keepdims=True)
    return divide(weights, total, total > 0)


def _check(cost, epsilon, num_iters, value, gradient, solver) -> None:
    if jnp.ndim(cost) < 2 or 0 in jnp.shape(cost):
        raise ValueError(
            f"The cost is [.., n, m] with a row and a column at least; got "
            f"{jnp.shape(cost)}."
        )
    if isinstance(epsilon, int | float) and not epsilon > 0:
        raise ValueError(f"epsilon is above zero; got {epsilon}.")
    if jnp.ndim(epsilon) and jnp.shape(epsilon) != jnp.shape(cost)[:-2]:
        raise ValueError(
            f"epsilon is one number or one a problem, {jnp.shape(cost)[:-2]}; got "
            f"{jnp.shape(epsilon)}."
        )
    if not isinstance(num_iters, int) or num_iters < 1:
        raise ValueError(f"num_iters is a whole number above zero; got {num_iters!r}.")
    keywords = (("value", value, Value), ("gradient", gradient, Gradient))
    for name, given, kind in (*keywords, ("solver", solver, Solver)):
        if given not in get_args(kind):
            options = ", ".join(map(repr, get_args(kind)))
            raise ValueError(f"{name} is one of {options}; got {given!r}.")
