"""Derivatives of entropic transport by its cost: at convergence, and of K iterations.

All are of a value over epsilon by the cost over epsilon, so that no factor remains.
"""

import jax
import jax.numpy as jnp

from eegkd.ops.sinkhorn_iterations import (
    Block,
    Problem,
    divide,
    kernel,
    times,
    transposed_times,
)
from eegkd.typing import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST
_NUM_REFINEMENTS = 3


def implicit_gradient(plan: Float[Array, "b n m"]) -> Float[Array, "b n m"]:
    """Computes the derivative of <P, C> by C at convergence, from the plan alone.

    With r and c the plan's own marginals, `G = P (1 + l_i + m_j + log P)`, where

        r_i l_i + sum_j P_ij m_j = -sum_j P_ij log P_ij
        sum_i P_ij l_i + c_j m_j = -sum_i P_ij log P_ij

    is solved by the Schur complement of its larger side. It is the implicit function
    theorem on the marginal constraints; as a shift of the cost by row and by column
    changes l and m alone, `-log P` stands for `C / epsilon` and cancels less.
    """
    if plan.shape[1] < plan.shape[2]:
        return implicit_gradient(plan.swapaxes(1, 2)).swapaxes(1, 2)
    log_plan = jnp.log(jnp.where(plan > 0, plan, 1))
    entropy = -plan * log_plan
    r, c = jnp.sum(plan, axis=2), jnp.sum(plan, axis=1)
    rows, columns = jnp.sum(entropy, axis=2), jnp.sum(entropy, axis=1)
    share = divide(plan, r[:, :, None], (r > 0)[:, :, None])
    right = columns - transposed_times(share, rows)
    m = _solve_laplacian(plan, share, c, right)
    l = divide(rows - times(plan, m), r, r > 0)
    return plan * (1 + l[:, :, None] + m[:, None, :] + log_plan)


def _solve_laplacian(
    plan: Float[Array, "b n m"],
    share: Float[Array, "b n m"],
    c: Float[Array, "b m"],
    right: Float[Array, "b m"],
) -> Float[Array, "b m"]:
    """Solves `(diag(c) - P^T diag(1/r) P) x = right`, a graph Laplacian's system.

    Its null vector is constant. Parts of the graph that hang together by less than
    rounding have constants of their own, which the gradient does not see: a small
    ridge bounds them, and refinement removes the ridge's effect on all else.
    """
    size = c.shape[1]
    scale = jax.lax.rsqrt(jnp.where(c > 0, c, 1)) * (c > 0)
    joint = jnp.einsum("bij,bik->bjk", share, plan, precision=_HIGHEST)
    joint = joint * scale[:, :, None] * scale[:, None, :]
    joint = jnp.where(jnp.eye(size, dtype=bool), 0, joint)
    # The diagonal from the other elements of its row: a difference would cancel.
    root = jnp.sqrt(c)
    diagonal = divide(times(joint, root), root, c > 0)
    ridge = size * jnp.finfo(c.dtype).eps
    matrix = _diagonal(diagonal + ridge) - joint + root[:, :, None] * root[:, None, :]
    factor = jnp.linalg.cholesky(matrix)
    target = scale * right

    def refine(_, x):
        residual = target - diagonal * x + times(joint, x)
        return x + _cholesky_solve(factor, residual)

    x = jax.lax.fori_loop(0, 1 + _NUM_REFINEMENTS, refine, jnp.zeros_like(c))
    return scale * x


def _diagonal(values: Float[Array, "b m"]) -> Float[Array, "b m m"]:
    return values[:, :, None] * jnp.eye(values.shape[1], dtype=values.dtype)


def _cholesky_solve(factor: Float[Array, "b m m"], x: Float[Array, "b m"]) -> Array:
    return jax.scipy.linalg.cho_solve((factor, True), x[..., None])[..., 0]


def unrolled_gradient(
    problem: Problem,
    blocks: tuple[Block, ...],
    f_bar: Float[Array, "b n"],
    g_bar: Float[Array, "b m"],
) -> Float[Array, "b n m"]:
    """Carries the derivative by the last potentials back to the cost.

    Args:
        problem: Iterated problem.
        blocks: Blocks that `iterate` kept.
        f_bar: Derivative of the value by the last f, g held fixed.
        g_bar: Derivative of the value by the last g, f held fixed.
    """
    carry = f_bar, g_bar, jnp.zeros_like(problem.scaled)

    def step(carry, block: Block):
        f_bar, g_bar, cost_bar = carry
        f_bar, g_bar, added = jax.lax.cond(
            block.by_products, _back_products, _back_logs, problem, block, f_bar, g_bar
        )
        return (f_bar, g_bar, cost_bar + added), None

    for stack in reversed(blocks):
        carry, _ = jax.lax.scan(step, carry, stack, reverse=True)
    return carry[-1]


def _back_products(problem: Problem, block: Block, f_bar: Array, g_bar: Array):
    """Goes back through a block of scalings; its kernel is written to once."""
    matrix = kernel(problem, block.f, block.g)
    rows, columns = problem.a > 0, problem.b > 0
    before = _shifted(jnp.ones_like(block.g), block.columns)

    def step(carry, scalings):
        f_bar, g_bar = carry
        u, v, v_before = scalings
        y = divide(v * g_bar, problem.b, columns)
        f_bar = f_bar - u * times(matrix, y)
        x = divide(u * f_bar, problem.a, rows)
        g_bar = -v_before * transposed_times(matrix, x)
        return (jnp.zeros_like(f_bar), g_bar), (x, y)

    trace = block.rows, block.columns, before
    (f_bar, g_bar), (x, y) = jax.lax.scan(step, (f_bar, g_bar), trace, reverse=True)
    left = jnp.concatenate([block.rows, x])
    right = jnp.concatenate([y, before])
    added = jnp.einsum("kbn,kbm->bnm", left, right, precision=_HIGHEST)
    return f_bar, g_bar, matrix * added


def _back_logs(problem: Problem, block: Block, f_bar: Array, g_bar: Array):
    before = _shifted(block.g, block.columns)

    def step(carry, potentials):
        f_bar, g_bar, cost_bar = carry
        f, g, g_before = potentials
        matrix = kernel(problem, f, g)
        # Over the sums, which are b and a but for rounding: it must not add up.
        y = _over_sum(g_bar, matrix, axis=1)
        f_bar = f_bar - times(matrix, y)
        cost_bar = cost_bar + matrix * y[:, None, :]
        matrix = kernel(problem, f, g_before)
        x = _over_sum(f_bar, matrix, axis=2)
        g_bar = -transposed_times(matrix, x)
        cost_bar = cost_bar + matrix * x[:, :, None]
        return (jnp.zeros_like(f_bar), g_bar, cost_bar), None

    carry = f_bar, g_bar, jnp.zeros_like(problem.scaled)
    trace = block.rows, block.columns, before
    carry, _ = jax.lax.scan(step, carry, trace, reverse=True)
    return carry


def _over_sum(x: Array, matrix: Float[Array, "b n m"], *, axis: int) -> Array:
    total = jnp.sum(matrix, axis=axis)
    return divide(x, total, total > 0)


def _shifted(first: Float[Array, "b m"], later: Float[Array, "k b m"]) -> Array:
    """Returns the start of each iteration."""
    return jnp.concatenate([first[None], later[:-1]])
