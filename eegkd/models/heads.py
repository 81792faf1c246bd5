"""Small heads on pooled features."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.layers import LayerNorm
from eegkd.typing import Array, Float, PyTree


def apply_params(module: nn.Module, params: PyTree, *args: Any, **options: Any) -> Any:
    """Calls a module with parameters alone, where Linen's `apply` wants collections."""
    return module.apply({"params": params}, *args, **options)


class LinearHead(nn.Module):
    """Maps features to class logits in float32: LayerNorm, Dense."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """Returns class logits."""
        x = LayerNorm(name="norm")(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        return nn.Dense(self.num_classes, name="dense")(x)
