"""Dot-product attention through one function, fused where a GPU can.

Heads may share keys and values in groups (GQA, MQA). Masks are boolean, True = keep.
"""

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.masks import boolean_mask
from eegkd.typing import Array, Float, Mask

IMPLEMENTATIONS = ("plain", "xla", "cudnn")
_HALF = (jnp.bfloat16, jnp.float16)
_FLASH_HEAD = 128
"""The widest head that cuDNN's kernels take on every GPU they run on."""


def dot_product_attention(
    q: Float[Array, "b n h e"],
    k: Float[Array, "b m g e"],
    v: Float[Array, "b m g e"],
    *,
    mask: Mask[Array, "#b #h #n m"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "b n h e"]:
    """Computes `softmax(scale q k^T) v` per head, over the keys that are allowed.

    Query head `i` reads key and value head `i // (h / g)`. A query without any allowed
    key gets 0, and sends no gradient; NaN never comes of a mask.

    Args:
        q: Queries.
        k: Keys; g divides h.
        v: Values.
        mask: True where a query sees a key; None is all.
        causal: True if a query sees itself and earlier keys only, besides the mask;
            needs n = m, as with a cache the mask has to say what is earlier.
        scale: Factor on the scores; None is `e ** -0.5`.
        implementation: "plain": here, scores and softmax in float32 or wider, float64
            kept. "xla" and "cudnn": jax.nn.dot_product_attention's; cuDNN's, which
            never holds all scores in memory, wants a CUDA GPU, half precision, and with
            a mask an even n and m. None is "cudnn" where it runs, else "plain".

    Raises:
        ValueError: If shapes do not fit, or the implementation is unknown; if the mask
            is of another type than bool, or ones and zeros.
    """
    (_, n, h, e), (_, m, g, _) = q.shape, k.shape
    if h % g or k.shape != v.shape or (q.shape[0], e) != (k.shape[0], k.shape[3]):
        raise ValueError(
            f"Need q [b, n, h, e] and k, v [b, m, g, e] with g dividing h; got "
            f"{q.shape}, {k.shape}, {v.shape}."
        )
    if causal and n != m:
        raise ValueError(f"causal needs as many queries as keys; got {n} and {m}.")
    if implementation is None:
        implementation = "cudnn" if _fused(q, k, mask) else "plain"
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation is plain, xla or cudnn; got {implementation}."
        )
    factor = float(e) ** -0.5 if scale is None else scale
    lower = jnp.tri(n, dtype=bool)[None, None]
    if mask is None:
        if implementation == "plain":
            return _plain(q, k, v, lower if causal else None, factor)
        return _library(q, k, v, None, causal, factor, implementation)
    mask = boolean_mask(mask, mask.shape)
    mask = mask & lower if causal else mask
    some = mask.any(axis=-1, keepdims=True)
    # Kernels differ on an empty row: such a row sees every key.
    keep = jnp.broadcast_to(mask | ~some, (*mask.shape[:2], n, m))
    if implementation == "plain":
        out = _plain(q, k, v, keep, factor)
    else:
        out = _library(q, k, v, keep, causal, factor, implementation)
    return jnp.where(some.swapaxes(1, 2), out, jnp.zeros_like(out))


def _library(
    q: Array,
    k: Array,
    v: Array,
    keep: Array | None,
    causal: bool,
    scale: float,
    implementation: str,
) -> Array:
    return jax.nn.dot_product_attention(  # pyright: ignore[reportCallIssue]
        q,
        k,
        v,
        mask=keep,
        is_causal=causal,
        scale=scale,
        implementation=implementation,  # pyright: ignore[reportArgumentType]
    )


def _plain(q: Array, k: Array, v: Array, keep: Array | None, scale: float) -> Array:
    (b, n, h, e), (m, g) = q.shape, k.shape[1:3]
    # Heads before tokens: a CPU is twice as slow at the other order. Heads of a group
    # are rows of one product, so that keys and values are never repeated.
    q = q.reshape(b, n, g, h // g, e).transpose(0, 2, 3, 1, 4).reshape(b, g, -1, e)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = scale * jnp.einsum("bgie,bgme->bgim", q, k, preferred_element_type=wide)
    if keep is not None:
        heads = (g, h // g) if keep.shape[1] == h else (1, 1)
        keep = keep.reshape(keep.shape[0], *heads, n, m)
        scores = jnp.where(
            keep, scores.reshape(b, g, h // g, n, m), jnp.finfo(wide).min
        ).reshape(scores.shape)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    out = jnp.einsum("bgim,bgme->bgie", weights.astype(v.dtype), v)
    # The sum divides the average instead of the weights, which are m / e as many.
    out = (promote(out) / total).astype(v.dtype)
    return out.reshape(b, h, n, e).transpose(0, 2, 1, 3)


def _fused(q: Array, k: Array, mask: Array | None) -> bool:
    """Returns whether cuDNN's kernels run here and take these arrays."""
    n, m, e = q.shape[1], k.shape[1], q.shape[3]
    # A single query is bound by reading keys: nothing to fuse, and no even length.
    shaped = n > 1 and e % 8 == 0 and e <= _FLASH_HEAD
    even = mask is None or (n % 2 == 0 and m % 2 == 0)
    if not (shaped and even and q.dtype in _HALF and q.dtype == k.dtype):
        return False
    device = jax.devices()[0]
    if "cuda" not in device.client.platform_version.lower():
        return False
    return float(device.compute_capability) >= 8
