"""Self-attention with Transformer-XL relative positions, and tokens without any."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.export import is_symbolic_dim

from eegkd.models.layers import Dropout, LayerNorm
from eegkd.models.prompts import append_tokens
from eegkd.typing import Array, Float


class RelativeAttention(nn.Module):
    """Attends from signal tokens to signal and side tokens.

    `score[i, j] = ((q_i + u) k_j + (q_i + v) W r_{i-j}) / sqrt(d / h)`; a side token
    has no position, so a pair that includes one has the first part only.

    Attributes:
        num_heads: Heads.
        rel_pos: True if the second part exists.
        dropout: Rate on the output.
        dtype: Type of activations; softmax is in float32 or wider.
    """

    num_heads: int
    rel_pos: bool
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        side: Float[Array, "s p d"] | None,
        num_kept: int,
        *,
        train: bool,
    ) -> Float[Array, "b m d"]:
        """Returns outputs for the signal tokens and the first `num_kept` side ones."""
        b, n, d = x.shape
        heads = (self.num_heads, d // self.num_heads)
        norm = LayerNorm(dtype=self.dtype, name="norm")
        x, side = norm(x), None if side is None else norm(side)

        def project(name: str) -> Array:
            layer = nn.Dense(d, dtype=self.dtype, name=name)
            both = append_tokens(layer(x), None if side is None else layer(side))
            # Heads come before tokens: a CPU is twice as slow at the other order.
            return both.reshape(b, -1, *heads).transpose(0, 2, 1, 3)

        q, k, v = project("query"), project("key"), project("value")
        q = q[:, :, : n + num_kept] * heads[1] ** -0.5
        if self.rel_pos:
            init = nn.initializers.normal(0.02)
            u, w = (
                self.param(name, init, heads).astype(q.dtype)[:, None]
                * heads[1] ** -0.5
                for name in "uv"
            )
            position = nn.Dense(d, use_bias=False, dtype=self.dtype, name="position")
            r = position(sinusoids(n, d)).reshape(-1, *heads).transpose(1, 0, 2)
            scores = jnp.einsum("bhne,bhme->bhnm", q + u, k)
            scores += position_scores(q + w, r, n, scores.shape[3])
        else:
            scores = jnp.einsum("bhne,bhme->bhnm", q, k)
        out = softmax_average(scores, v)
        out = out.transpose(0, 2, 1, 3).reshape(b, -1, d)
        out = nn.Dense(d, dtype=self.dtype, name="out")(out)
        return Dropout(self.dropout)(out, train=train)


def softmax_average(
    scores: Float[Array, "b h i j"],
    values: Float[Array, "b h j e"],
    *,
    drop: Callable[[Array], Array] | None = None,
    average: Callable[[Array, Array], Array] | None = None,
) -> Float[Array, "b h i e"]:
    """Computes `drop(softmax(scores)) values`, exponentials in float32 or wider.

    The sum divides the average instead of the weights, which are `j / e` as many.

    Args:
        scores: Scores of queries and keys.
        values: Values, one row per key.
        drop: Dropout of the weights.
        average: Product of weights and values: `ops.head_average` for few tokens.
    """
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights if drop is None else drop(weights)
    average = average or functools.partial(jnp.einsum, "bhij,bhje->bhie")
    out = average(weights.astype(values.dtype), values)
    return (out / total).astype(values.dtype)


def sinusoids(n: int, d: int) -> Float[Array, "r d"]:
    """Returns sines and cosines of the offsets `n - 1, ..., 1 - n`."""
    offsets = jnp.arange(n - 1, -n, -1, dtype=jnp.float32)
    rates = 10_000.0 ** (-jnp.arange(0, d, 2, dtype=jnp.float32) / d)
    angles = offsets[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def position_scores(
    q: Float[Array, "b h i e"], r: Float[Array, "h r e"], n: int, num_keys: int
) -> Float[Array, "b h i j"]:
    """Computes `q_i r_{i-j}` for the first `n` queries and keys, 0 for all others.

    Args:
        q: Queries, those of signal tokens first.
        r: One row per offset, from `n - 1` (first) down to `1 - n`.
        n: Number of signal tokens.
        num_keys: Number of keys.
    """
    batch, num_queries, width = q.shape[0], q.shape[2], q.shape[3]
    # An exported program has one form for every batch, that of few queries.
    if is_symbolic_dim(batch) or 2 * batch < width:
        # Few queries: score every offset, then skew rows so that columns are keys.
        by_offset = jnp.einsum("bhie,hre->bhir", q[:, :, :n], r)
        pads = ((0, 0), (0, 0), (0, num_queries - n), (0, num_keys - n))
        return jnp.pad(relative_shift(by_offset), pads)
    rows, columns = jnp.arange(num_queries)[:, None], jnp.arange(num_keys)
    signal = (rows < n) & (columns < n)
    index = jnp.where(signal, n - 1 - rows + columns, 2 * n - 1)  # the last: zeros
    heads = jnp.arange(r.shape[0])[:, None, None]
    table = jnp.pad(r, ((0, 0), (0, 1), (0, 0))).reshape(-1, width)
    # One gather of rows comes out in the order that the product wants.
    table = table.at[2 * n * heads + index].get(mode="promise_in_bounds")
    return jnp.einsum("bhie,hije->bhij", q, table)


def relative_shift(scores: Float[Array, "b h n r"]) -> Float[Array, "b h n n"]:
    """Turns scores by offset into scores by key: `out[i, j] = in[i, n - 1 - i + j]`."""
    b, h, n, num_offsets = scores.shape
    flat = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (1, 0))).reshape(b, h, -1)
    return flat[..., n:].reshape(b, h, n, num_offsets)[..., :n]
