"""Sinkhorn's iterations, in blocks: by matrix-vector products where they hold.

Potentials are in units of epsilon. A block absorbs them into the kernel
`K = exp(f + g - C / epsilon)` and iterates scalings, `u = a / K v`, `v = b / K^T u`, a
hundred times cheaper than a log-sum-exp each. That is exact as long as no scaling grows
so large that it would bring back what has underflowed in K. Where one does, for any
problem of the batch, the block is iterated again in the log domain, which always holds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eegkd.typing import Array, Bool, Float

_BLOCK = 20
_HIGHEST = jax.lax.Precision.HIGHEST


class Problem(NamedTuple):
    """A batch of problems; a weight of zero takes its row or column out.

    Attributes:
        scaled: The cost in units of epsilon, finite everywhere.
        a: Weights of the rows, summing to one.
        b: Weights of the columns, summing to one.
    """

    scaled: Float[Array, "b n m"]
    a: Float[Array, "b n"]
    b: Float[Array, "b m"]


class State(NamedTuple):
    """Potentials `f + log u` and `g + log v`, both parts finite."""

    f: Float[Array, "b n"]
    g: Float[Array, "b m"]
    u: Float[Array, "b n"]
    v: Float[Array, "b m"]


class Block(NamedTuple):
    """Values that the derivative of a block reads.

    Attributes:
        f: Potentials of the rows before the block.
        g: Potentials of the columns before it.
        by_products: True if it was iterated by products.
        rows: After every iteration [k, b, n]: scalings u where by products, else
            potentials f.
        columns: Likewise of the columns, [k, b, m].
    """

    f: Float[Array, "b n"]
    g: Float[Array, "b m"]
    by_products: Bool[Array, ""]
    rows: Float[Array, "k b n"]
    columns: Float[Array, "k b m"]


def iterate(
    problem: Problem, num_iters: int, *, keep: bool = False
) -> tuple[State, tuple[Block, ...]]:
    """Updates f, then g, `num_iters` times from g = 0.

    Args:
        problem: Problem to solve.
        num_iters: Number of iterations, at least one.
        keep: True to return what the derivative of the iterations reads.

    Returns:
        The last state, and the blocks: full ones stacked on a first axis, then what
        remains as a stack of one; none unless kept.
    """
    costs = jnp.where(valid(problem), problem.scaled, jnp.inf)
    least = jnp.where(problem.a > 0, jnp.min(costs, axis=2), 0)
    ones = jnp.ones_like(problem.a), jnp.ones_like(problem.b)
    state = State(least, jnp.zeros_like(problem.b), *ones)
    num_full, rest = divmod(num_iters, _BLOCK)
    blocks = []
    for count, length in ((num_full, _BLOCK), (1, rest)):
        if count and length:

            def step(state: State, _: None, length: int = length):
                return _iterate_block(problem, state, length, keep)

            state, block = jax.lax.scan(step, state, length=count)
            blocks.append(block)
    return state, tuple(blocks) if keep else ()


def kernel(
    problem: Problem, f: Float[Array, "b n"], g: Float[Array, "b m"]
) -> Float[Array, "b n m"]:
    """Computes `exp(f_i + g_j - C_ij / epsilon)`, zero where a weight is zero.

    Where f or g was updated last, no element exceeds its weight but by rounding. That
    is bounded, for costs so large that their last place is many epsilons.
    """
    exponents = f[:, :, None] + g[:, None, :] - problem.scaled
    return jnp.where(valid(problem), jnp.exp(jnp.minimum(exponents, 1)), 0)


def finish(
    problem: Problem, state: State
) -> tuple[Float[Array, "b n m"], Float[Array, "b n"], Float[Array, "b m"]]:
    """Returns the plan and its potentials, after the last columns' update once more.

    After scalings the update changes nothing; after the log domain it takes away the
    rounding of large potentials. As a softmax it is finite whatever was lost before.
    """
    log_u = absorb(jnp.zeros_like(state.u), state.u, problem.a)
    exponents = state.f[:, :, None] + state.g[:, None, :] - problem.scaled
    exponents = jnp.where(valid(problem), exponents + log_u[:, :, None], -jnp.inf)
    top = jnp.where(problem.b > 0, jnp.max(exponents, axis=1), 0)
    # A compiler that computes the exponents twice may round them differently.
    plan = jnp.exp(jnp.minimum(exponents - top[:, None, :], 1))
    total = jnp.maximum(jnp.sum(plan, axis=1), jnp.finfo(plan.dtype).tiny)
    v = divide(problem.b, total, problem.b > 0)
    g = absorb(state.g, v, problem.b) - top
    return plan * v[:, None, :], state.f + log_u, g


def times(matrix: Float[Array, "b n m"], x: Float[Array, "b m"]) -> Array:
    """Multiplies matrices by vectors."""
    return jnp.einsum("bnm,bm->bn", matrix, x, precision=_HIGHEST)


def transposed_times(matrix: Float[Array, "b n m"], x: Float[Array, "b n"]) -> Array:
    """Multiplies transposed matrices by vectors."""
    return jnp.einsum("bnm,bn->bm", matrix, x, precision=_HIGHEST)


def divide(x: Array, y: Array, where: Array) -> Array:
    """Divides where a mask is True, else returns zero, without dividing by zero."""
    return jnp.where(where, x / jnp.where(where, y, 1), 0)


def absorb(potential: Array, scaling: Array, weight: Array) -> Array:
    """Returns `potential + log scaling`, unchanged where a weight is zero."""
    return potential + jnp.log(jnp.where(weight > 0, scaling, 1))


def _iterate_block(
    problem: Problem, state: State, length: int, keep: bool
) -> tuple[State, Block | None]:
    f = absorb(state.f, state.u, problem.a)
    g = absorb(state.g, state.v, problem.b)
    u, v, holds, scalings = _by_products(problem, f, g, length, keep)

    def by_logs():
        f_last, g_last, potentials = _by_logs(problem, f, g, length, keep)
        return State(f_last, g_last, jnp.ones_like(f), jnp.ones_like(g)), potentials

    state, trace = jax.lax.cond(holds, lambda: (State(f, g, u, v), scalings), by_logs)
    return state, Block(f, g, holds, *trace) if keep else None


def _by_products(problem: Problem, f: Array, g: Array, length: int, keep: bool):
    """Iterates scalings; also returns whether they are exact to rounding."""
    matrix = kernel(problem, f, g)
    rows, columns = problem.a > 0, problem.b > 0

    def step(carry, _):
        _, v, top_u, top_v = carry
        u = divide(problem.a, times(matrix, v), rows)
        v = divide(problem.b, transposed_times(matrix, u), columns)
        top = jnp.maximum(top_u, u), jnp.maximum(top_v, v)
        return (u, v, *top), (u, v) if keep else None

    start = jnp.ones_like(f), jnp.ones_like(g)
    carry, trace = jax.lax.scan(step, (*start, *start), length=length)
    u, v, top_u, top_v = carry
    # An entry below the smallest number is lost; with the largest scalings it must not
    # reach a rounding of the smallest weight.
    info = jnp.finfo(matrix.dtype)
    lightest = jnp.minimum(_least_weight(problem.a), _least_weight(problem.b))
    limit = lightest * (info.eps / (top_u.shape[1] * top_v.shape[1])) / info.tiny
    holds = jnp.all(jnp.max(top_u, axis=1) * jnp.max(top_v, axis=1) <= limit)
    # XLA's maximum may pass a NaN by on a CPU; once there, it stays to the end.
    holds = holds & jnp.all(jnp.isfinite(u)) & jnp.all(jnp.isfinite(v))
    return u, v, holds, trace


def _by_logs(problem: Problem, f: Array, g: Array, length: int, keep: bool):
    rows, columns = problem.a > 0, problem.b > 0
    log_a, log_b = (jnp.log(jnp.where(w > 0, w, 1)) for w in (problem.a, problem.b))
    blocked = jnp.where(valid(problem), problem.scaled, jnp.inf)

    def step(carry, _):
        f, g = carry
        sums = jax.nn.logsumexp(g[:, None, :] - blocked, axis=2)
        f = jnp.where(rows, log_a - sums, f)
        sums = jax.nn.logsumexp(f[:, :, None] - blocked, axis=1)
        g = jnp.where(columns, log_b - sums, g)
        return (f, g), (f, g) if keep else None

    (f, g), trace = jax.lax.scan(step, (f, g), length=length)
    return f, g, trace


def _least_weight(weight: Float[Array, "b n"]) -> Float[Array, " b"]:
    return jnp.min(jnp.where(weight > 0, weight, 1), axis=1)


def valid(problem: Problem) -> Bool[Array, "b n m"]:
    """Returns where neither weight is zero."""
    return (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
