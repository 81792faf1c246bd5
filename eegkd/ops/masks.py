"""Boolean masks (True = keep), and means over what they keep."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from eegkd.errors import InputError
from eegkd.typing import Array, Bool, Float, Mask


def is_known(*arrays: Any) -> bool:
    """Returns whether all values are known: not in jit, nor with other processes."""
    return not any(
        isinstance(x, Tracer) or not getattr(x, "is_fully_addressable", True)
        for x in arrays
    )


def boolean_mask(
    mask: Mask[Array, "..."] | None, shape: Sequence[int], name: str = "mask"
) -> Bool[Array, "*b"]:
    """Returns a mask as booleans; None is everywhere.

    Ones and zeros, as tokenizers give, are taken where their values are at hand. Inside
    jit nobody can tell them from a mask that is added to scores.

    Args:
        mask: True, or 1, where something is kept.
        shape: Shape that it has to have.
        name: Name of the argument, for the message.

    Raises:
        InputError: If the mask has another shape, type or other values.
    """
    if mask is None:
        return jnp.ones(shape, bool)
    if mask.shape != tuple(shape):
        raise InputError(
            f"{name} has the shape {mask.shape}, and {tuple(shape)} is needed: give a "
            "value for each."
        )
    if mask.dtype == bool:
        return mask
    is_whole = jnp.issubdtype(mask.dtype, jnp.integer)
    if is_whole and is_known(mask) and np.isin(np.asarray(mask), (0, 1)).all():
        return mask == 1
    raise InputError(
        f"{name} is {mask.dtype}{'' if is_known(mask) else ' inside jit'}, and has "
        "to be boolean, True where something is kept: turn a tokenizer's ones and "
        f"zeros by {name}.astype(bool), one that is added to scores by {name} == 0."
    )


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
    """Sets rows that a mask hides to zero, so that their values never count."""
    return x if mask is None else jnp.where(mask[..., None], x, 0)
