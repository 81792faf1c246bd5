"""Mixtures of a model's layers, and the normalisation that makes them comparable."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Float


def standardise(x: Float[Array, "*n d"], *, eps: float = 1e-5) -> Float[Array, "*n d"]:
    """Computes `(x - mean) / sqrt(var + eps)` over the width: LayerNorm's fixed part.

    Returns float32 or wider.
    """
    x = promote(x)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps)


def mix_layers(
    layers: Sequence[Float[Array, "b *n d"]],
    weights: Float[Array, "b l"] | Float[Array, " l"],
    *,
    normalise: bool = True,
) -> Float[Array, "b *n d"]:
    """Computes `sum_l weights_l LN(layers_l)`, one mixture of layers per example.

    Args:
        layers: Arrays of equal shape.
        weights: One row per example, or one for all.
        normalise: Standardise each layer first. Norms grow with depth: otherwise the
            last layers outweigh the others whatever the weights.

    Raises:
        ValueError: If the number of weights is not that of the layers.
    """
    if weights.shape[-1] != len(layers):
        raise ValueError(f"{weights.shape[-1]} weights for {len(layers)} layers.")
    weights = promote(weights)
    mixed = jnp.zeros((), weights.dtype)
    for i, layer in enumerate(layers):
        one = weights[..., i]
        one = jnp.reshape(one, (*one.shape, *[1] * (layer.ndim - one.ndim)))
        mixed = mixed + one * (standardise(layer) if normalise else promote(layer))
    return mixed
