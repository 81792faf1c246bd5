"""The number type that losses and statistics are computed in."""

import jax.numpy as jnp

from eegkd.typing import Array


def promote(x: Array) -> Array:
    """Raises `x` to at least float32: bfloat16 rises, float64 stays."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
