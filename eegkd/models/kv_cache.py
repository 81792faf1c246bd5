"""Keys and values of earlier tokens, in a fixed number of slots.

All rows write to the same slots, so that a write is one slice; what differs by row, the
length of a prompt, is in the mask.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from eegkd.ops.masks import boolean_mask
from eegkd.typing import Array, Bool, Float, Int, Mask


class Cache(NamedTuple):
    """Keys and values by layer, slot and head.

    Attributes:
        key: Keys, rotated to their positions.
        value: Values.
        mask: True for slots that hold a token: not free, and no padding.
        length: First free slot, equal in all rows.
    """

    key: Float[Array, "depth b m g e"]
    value: Float[Array, "depth b m g e"]
    mask: Bool[Array, "b m"]
    length: Int[Array, ""]


def begin_cache(
    keys: tuple[Float[Array, "depth b l g e"], Float[Array, "depth b l g e"]],
    mask: Bool[Array, "b l"],
    room: int,
) -> Cache:
    """Makes a cache of `room` slots, of which the tokens given take the first.

    Raises:
        ValueError: If there are more tokens than slots.
    """
    length = mask.shape[1]
    if length > room:
        raise ValueError(f"{length} tokens do not fit into {room} slots.")
    free = ((0, 0), (0, 0), (0, room - length), (0, 0), (0, 0))
    key, value = (jnp.pad(part, free) for part in keys)
    return Cache(key, value, jnp.pad(mask, free[1:3]), jnp.int32(length))


def append_keys(
    cache: Cache,
    keys: tuple[Float[Array, "depth b l g e"], Float[Array, "depth b l g e"]],
    mask: Bool[Array, "b l"],
) -> Cache:
    """Writes tokens into the next slots, in place where the cache is given away.

    The caller ensures that as many are free: the number taken is known only when the
    program runs. After a write past the end everything that reads the cache is NaN.

    Raises:
        ValueError: If there are more tokens than slots.
    """
    (b, room), length = cache.mask.shape, mask.shape[1]
    if length > room or mask.shape[0] != b:
        raise ValueError(
            f"{mask.shape[0]} rows of {length} tokens do not fit into {b} of {room} "
            "slots."
        )
    put, at = jax.lax.dynamic_update_slice_in_dim, cache.length
    # It lands on the last slots, in place of other tokens: loud, and not silently so.
    fits = at + length <= room
    new_key, new_value = (jnp.where(fits, part, jnp.nan) for part in keys)
    return Cache(
        put(cache.key, new_key, at, axis=2),
        put(cache.value, new_value, at, axis=2),
        put(cache.mask, mask, at, axis=1),
        at + length,
    )


def visible_keys(
    mask: Bool[Array, "b l"], visible: Mask[Array, "#b l l"] | None, cache: Cache | None
) -> Bool[Array, "b l n"]:
    """Returns which keys each token sees, those of the cache first.

    Args:
        mask: True where there is a token.
        visible: True where one of these tokens sees another; None is earlier ones
            and itself.
        cache: Earlier tokens, which all of them see.
    """
    b, length = mask.shape
    seen = jnp.tri(length, dtype=bool)[None]
    if visible is not None:
        seen = boolean_mask(visible, visible.shape, "visible")
    seen = seen & mask[:, None]
    if cache is None:
        return seen
    earlier = jnp.broadcast_to(cache.mask[:, None], (b, length, cache.mask.shape[1]))
    return jnp.concatenate([earlier, seen], axis=2)
