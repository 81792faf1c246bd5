"""Costs between all pairs of two token sets, in products that do not cancel."""

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Bool, Float

# Up to this width differences cost no more than products, and are exact.
_NARROW = 8
_HIGHEST = jax.lax.Precision.HIGHEST


def pairwise_sqeuclidean(
    x: Float[Array, "*b n d"], y: Float[Array, "*b m d"]
) -> Float[Array, "*b n m"]:
    """Computes `||x_i - y_j||^2` in at least float32; never negative.

    Wide tokens go through the Gram matrix, around the mean of `y`: a value's error is
    a rounding of the squared spread of the two sets, wherever they lie. Up to width 8
    the differences themselves are squared.

    Example:
        >>> pairwise_sqeuclidean(jnp.ones((1, 2)), jnp.zeros((3, 2))).tolist()
        [[2.0, 2.0, 2.0]]

    Note:
        The gradient is `2 (x_i - y_j)` also where rounding was cut off at zero. A
        GPU's TF32 or a TPU's bfloat16 products would err by 6 % and 51 % on nearly
        matched unit tokens, so products are at full precision.
    """
    x, y = _matched(x, y)
    if x.shape[-1] <= _NARROW:
        return jnp.sum((x[..., :, None, :] - y[..., None, :, :]) ** 2, axis=-1)
    # A distance does not depend on the origin, so neither does its gradient.
    centre = jax.lax.stop_gradient(jnp.mean(y, axis=-2, keepdims=True))
    x, y = x - centre, y - centre
    squares = (
        jnp.sum(x**2, axis=-1)[..., :, None] + jnp.sum(y**2, axis=-1)[..., None, :]
    )
    values = squares - 2 * _products(x, y)
    return values + jax.lax.stop_gradient(jnp.maximum(values, 0) - values)


def pairwise_cosine_distance(
    x: Float[Array, "*b n d"], y: Float[Array, "*b m d"]
) -> Float[Array, "*b n m"]:
    """Computes `1 - cos(x_i, y_j)`, in [0, 2], in at least float32.

    A zero vector has distance 1 from all, and no gradient.

    Example:
        >>> pairwise_cosine_distance(jnp.eye(2), jnp.array([[3.0, 0.0]])).tolist()
        [[0.0], [1.0]]
    """
    x, y = _matched(x, y)
    values = 1 - _products(unit_vectors(x), unit_vectors(y))
    return values + jax.lax.stop_gradient(jnp.clip(values, 0, 2) - values)


def unit_vectors(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Scales vectors to length one at any scale; a zero vector stays, ungraded."""
    x = promote(x)
    # Powers of the largest element neither overflow nor vanish when squared.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    there = largest > jnp.finfo(x.dtype).tiny
    scaled = jnp.where(there, x / jnp.where(there, largest, 1), 0)
    squares = jnp.sum(scaled**2, axis=-1, keepdims=True)
    return scaled * jax.lax.rsqrt(jnp.where(there, squares, 1))


def masked_mean(
    x: Float[Array, "*b n d"], mask: Bool[Array, "*b n"] | None
) -> Float[Array, "*b d"]:
    """Averages the tokens that a mask keeps; zero where it keeps none."""
    if mask is None:
        return jnp.mean(x, axis=-2)
    count = jnp.sum(mask, axis=-1, keepdims=True)
    total = jnp.sum(jnp.where(mask[..., None], x, 0), axis=-2)
    return total / jnp.maximum(count, 1)


def _matched(x: Array, y: Array) -> tuple[Array, Array]:
    if x.shape[:-2] != y.shape[:-2] and x.ndim == y.ndim:
        # A teacher's batch of one would be compared with every example.
        raise ValueError(
            f"Need as many examples of both; got tokens {x.shape} and {y.shape}: "
            "repeat what is one for all."
        )
    if x.ndim < 2 or x.ndim != y.ndim or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"Need tokens [.., n, d] and [.., m, d] of one width; got {x.shape} and "
            f"{y.shape}: project the student to the teacher's width first."
        )
    return promote(x), promote(y)


def _products(x: Array, y: Array) -> Array:
    return jnp.einsum("...nd,...md->...nm", x, y, precision=_HIGHEST)
