"""Optimal transport between token sets of unlike sizes."""

from typing import Literal

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.pairwise import (
    masked_mean,
    pairwise_cosine_distance,
    pairwise_sqeuclidean,
    unit_vectors,
)
from eegkd.ops.sinkhorn_plan import Plan, sinkhorn, transport_plan
from eegkd.typing import Array, Bool, Float

_COSTS = {"sqeuclidean": pairwise_sqeuclidean, "cosine": pairwise_cosine_distance}


def token_ot(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b m d"],
    *,
    epsilon: float | Float[Array, ""] | Float[Array, " b"],
    num_iters: int = 100,
    student_mask: Bool[Array, "b n"] | None = None,
    teacher_mask: Bool[Array, "b m"] | None = None,
    cost: Literal["sqeuclidean", "cosine"] = "sqeuclidean",
    value: Literal["transport", "entropic", "kl", "divergence"] = "transport",
    gradient: Literal["envelope", "implicit", "unrolled"] = "envelope",
    solver: Literal["scaling", "ott"] = "scaling",
) -> Float[Array, " b"]:
    """Computes the entropic transport cost between two token sets, per example.

    With C the pairwise cost, uniform weights a and b over the tokens that count, and

        P = argmin <P, C> + epsilon sum_ij P_ij log P_ij,  P 1 = a,  P^T 1 = b

    the value is <P, C> ("transport"), that minimum ("entropic"), the minimum of
    `<P, C> + epsilon KL(P | a b^T)` ("kl"), or the debiased "divergence"

        kl(student, teacher) - kl(student, student) / 2 - kl(teacher, teacher) / 2

    which is zero on equal sets, where the others are not.

    Args:
        student: Student tokens.
        teacher: Teacher tokens, as wide; a narrower student is projected up first.
        epsilon: Above zero, in the cost's units, one for all or one per example;
            `relative_epsilon` gives it as a part of the mean cost.
        num_iters: Iterations; `token_plan` gives the marginal error to log.
        student_mask: True = counts. The others have no weight: neither their values
            nor their number changes anything.
        teacher_mask: True where a teacher's token counts.
        cost: The squared distance, or one minus the cosine.
        value: Value to return.
        gradient: Kind of derivative: "envelope" (the plan held fixed, which is the
            derivative of "kl" whatever is returned), "implicit" (the derivative of the
            value at convergence) or "unrolled" (that of the value at `num_iters`).
            For "divergence", of each of its three parts.
        solver: Ours, or ott-jax for comparison.

    Returns:
        One number per example; 0, with no gradient, where a mask keeps no token (a
        term's count masks it).

    Example:
        >>> import jax.numpy as jnp
        >>> student = jnp.array([[[0.0], [1.0]]])
        >>> teacher = jnp.array([[[1.0], [1.0], [0.0], [0.0]]])
        >>> round(float(token_ot(student, teacher, epsilon=0.1)[0]), 6)
        4.5e-05

    References:
        EVL-ECG, arXiv 2605.29977, its visual-token term: "transport" with "envelope",
        epsilon 0.1 on tokens of length one (our choice). Feydy et al., "Interpolating
        between optimal transport and MMD using Sinkhorn divergences", 2019, equation 3.
    """
    student, teacher = _fill(student, student_mask), _fill(teacher, teacher_mask)

    def solve(x, y, x_mask, y_mask, value):
        return sinkhorn(
            _cost(x, y, cost),
            epsilon=epsilon,
            num_iters=num_iters,
            row_weights=x_mask,
            column_weights=y_mask,
            value=value,
            gradient=gradient,
            solver=solver,
        ).cost

    if value != "divergence":
        return solve(student, teacher, student_mask, teacher_mask, value)
    across = solve(student, teacher, student_mask, teacher_mask, "kl")
    within = solve(student, student, student_mask, student_mask, "kl")
    within += solve(teacher, teacher, teacher_mask, teacher_mask, "kl")
    there = _any_token(student_mask) & _any_token(teacher_mask)
    return jnp.where(there, across - within / 2, 0)


def token_plan(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b m d"],
    *,
    epsilon: float | Float[Array, ""] | Float[Array, " b"],
    num_iters: int = 100,
    student_mask: Bool[Array, "b n"] | None = None,
    teacher_mask: Bool[Array, "b m"] | None = None,
    cost: Literal["sqeuclidean", "cosine"] = "sqeuclidean",
) -> tuple[Float[Array, "b n m"], Plan]:
    """Computes the transport plan of `token_ot`, for inspection; no gradient.

    Returns:
        The plan, and the result of `eegkd.ops.sinkhorn`: log its marginal `error`.

    Example:
        >>> import jax.numpy as jnp
        >>> student, teacher = jnp.array([[[0.0], [9.0]]]), jnp.array([[[9.0], [0.0]]])
        >>> token_plan(student, teacher, epsilon=0.1)[0].tolist()
        [[[0.0, 0.5], [0.5, 0.0]]]
    """
    tokens = _fill(student, student_mask), _fill(teacher, teacher_mask)
    costs = jax.lax.stop_gradient(_cost(*tokens, cost))
    solved = sinkhorn(
        costs,
        epsilon=epsilon,
        num_iters=num_iters,
        row_weights=student_mask,
        column_weights=teacher_mask,
    )
    return transport_plan(costs, solved, epsilon=epsilon), solved


def relative_epsilon(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b m d"],
    *,
    fraction: float = 0.05,
    student_mask: Bool[Array, "b n"] | None = None,
    teacher_mask: Bool[Array, "b m"] | None = None,
    cost: Literal["sqeuclidean", "cosine"] = "sqeuclidean",
) -> Float[Array, " b"]:
    """Computes `fraction` times the mean cost over pairs of tokens, per example.

    It is a setting: no gradient flows through it. Where the mean cost is zero (all
    tokens are one), it is `fraction`.

    Example:
        >>> import jax.numpy as jnp
        >>> student = jnp.array([[[0.0], [4.0]]])
        >>> relative_epsilon(student, jnp.zeros((1, 1, 1)), fraction=0.5).tolist()
        [4.0]
    """
    _check_cost(cost)
    x, y = (jax.lax.stop_gradient(promote(tokens)) for tokens in (student, teacher))
    if cost == "cosine":
        x_mean = masked_mean(unit_vectors(x), student_mask)
        y_mean = masked_mean(unit_vectors(y), teacher_mask)
        mean = 1 - jnp.sum(x_mean * y_mean, axis=-1)
    else:
        # Spread around the means, and the distance of these: nothing cancels.
        x_mean, y_mean = masked_mean(x, student_mask), masked_mean(y, teacher_mask)
        mean = jnp.sum((x_mean - y_mean) ** 2, axis=-1)
        for tokens, centre, mask in (
            (x, x_mean, student_mask),
            (y, y_mean, teacher_mask),
        ):
            spread = jnp.sum((tokens - centre[:, None]) ** 2, axis=-1, keepdims=True)
            mean = mean + masked_mean(spread, mask)[:, 0]
    return fraction * jnp.where(mean > 0, mean, 1)


def _cost(x: Array, y: Array, cost: str) -> Array:
    _check_cost(cost)
    return _COSTS[cost](x, y)


def _check_cost(cost: str) -> None:
    if cost not in _COSTS:
        raise ValueError(f"cost is 'sqeuclidean' or 'cosine'; got {cost!r}.")


def _fill(tokens: Array, mask: Array | None) -> Array:
    """Replaces tokens that do not count by the mean of those that do."""
    if mask is None:
        return tokens
    mean = jax.lax.stop_gradient(masked_mean(promote(tokens), mask))
    return jnp.where(mask[..., None], promote(tokens), mean[..., None, :])


def _any_token(mask: Array | None) -> Array:
    return jnp.asarray(True) if mask is None else jnp.any(mask, axis=-1)
