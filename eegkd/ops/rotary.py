"""Rotary positions (RoPE) in the half-split layout of LLaMA's published weights.

Reference:
    Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding",
    arXiv 2104.09864, eq. 34; the pairs are `(i, i + e/2)`, not `(2i, 2i + 1)`.
"""

import jax.numpy as jnp
import numpy as np

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Bool, Float, Int


def token_positions(mask: Bool[Array, "b l"]) -> Int[Array, "b l"]:
    """Counts real tokens from 0, whichever side the padding is on.

    A padding token has the position of the real token before it, or 0.
    """
    return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def rotary_angles(
    positions: Int[Array, "b l"], *, dim: int, theta: float
) -> tuple[Float[Array, "b l e"], Float[Array, "b l e"]]:
    """Returns cosines and sines of `position / theta ** (2 i / dim)`, in float32.

    Args:
        positions: Positions of the tokens.
        dim: Width of a head; `e` is half of it.
        theta: Base of the wavelengths.

    Raises:
        ValueError: If the width is odd.
    """
    if dim % 2:
        raise ValueError(f"Rotary positions need an even width; got {dim}.")
    rates = theta ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
    angles = positions[..., None] * jnp.asarray(rates, jnp.float32)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "b l h d"], cos: Float[Array, "b l e"], sin: Float[Array, "b l e"]
) -> Float[Array, "b l h d"]:
    """Turns each pair `(x_i, x_{i + d/2})` by its angle, in float32 or wider."""
    first, second = jnp.split(promote(x), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
