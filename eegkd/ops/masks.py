"""Means over what a boolean mask keeps (True = keep)."""

import jax.numpy as jnp

from eegkd.typing import Array, Bool, Float


def mean_kept(
    values: Float[Array, " b *n"], mask: Bool[Array, " b *n"] | None = None
) -> Float[Array, " b"]:
    """Averages each example's kept values; 0 where a mask keeps none.

    A masked value adds nothing, not even a NaN, nor does its gradient.
    """
    axes = tuple(range(1, values.ndim))
    if mask is None:
        return jnp.mean(values, axis=axes)
    kept = jnp.where(mask, values, 0)
    count = jnp.sum(mask, axis=axes, dtype=values.dtype)
    return jnp.sum(kept, axis=axes) / jnp.maximum(count, 1)


def keep_rows(x: Float[Array, "*b d"], mask: Bool[Array, "*b"] | None) -> Array:
    """Sets the rows that a mask hides to zero, so that what they hold never counts."""
    return x if mask is None else jnp.where(mask[..., None], x, 0)
