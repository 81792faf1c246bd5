"""Effective rank: the number of directions that a set of vectors spans."""

import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Float


def effective_rank(
    x: Float[Array, "*b n d"], *, eps: float = 1e-12
) -> Float[Array, "*b"]:
    """Computes `exp(-sum_i p_i log p_i)`, p the centred singular values over their sum.

    Between 1 (one direction, or none) and `min(n - 1, d)`; it falls when tokens
    collapse.

    References:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality",
        2007, definition 1.
    """
    x = promote(x)
    values = jnp.linalg.svd(x - jnp.mean(x, axis=-2, keepdims=True), compute_uv=False)
    share = values / jnp.maximum(jnp.sum(values, axis=-1, keepdims=True), eps)
    return jnp.exp(-jnp.sum(share * jnp.log(share + eps), axis=-1))
