"""Learnable prompt tokens, and how attention sees them."""

import jax.numpy as jnp
from flax import linen as nn

from eegkd.typing import Array, Float


class Prompts(nn.Module):
    """Owns fresh prompts for every layer of a frozen encoder.

    Attributes:
        depth: Number of layers of the encoder.
        num_prompts: Prompt tokens per layer.
        dim: Width of the encoder.
        init_std: Spread of the normal initial values.
    """

    depth: int
    num_prompts: int
    dim: int
    init_std: float = 0.02

    @nn.compact
    def __call__(self) -> Float[Array, "l p d"]:
        """Returns the prompts, one row per layer."""
        init = nn.initializers.normal(self.init_std)
        return self.param("prompts", init, (self.depth, self.num_prompts, self.dim))


def append_tokens(
    x: Float[Array, "b n d"], side: Float[Array, "s p d"] | None
) -> Float[Array, "b m d"]:
    """Appends side tokens, `[1, p, d]` (shared by the batch) or `[b, p, d]`."""
    if side is None:
        return x
    shared = jnp.broadcast_to(side, (x.shape[0], *side.shape[1:]))
    return jnp.concatenate([x, shared.astype(x.dtype)], axis=1)
