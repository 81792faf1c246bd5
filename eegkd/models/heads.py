"""Small heads on pooled features."""

import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.layers import LayerNorm
from eegkd.typing import Array, Float


class LinearHead(nn.Module):
    """Maps features to class logits in float32: LayerNorm, Dense."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """Returns class logits."""
        x = LayerNorm(name="norm")(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        return nn.Dense(self.num_classes, name="dense")(x)
