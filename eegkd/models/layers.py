"""Small layers that several encoders share."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.ops.depthwise import depthwise_conv1d, same_padding
from eegkd.ops.dropout import keep_mask
from eegkd.typing import Array, Float

LayerNorm: Callable[..., nn.LayerNorm] = functools.partial(nn.LayerNorm, epsilon=1e-5)


def gelu(x: Array) -> Array:
    """Computes the exact `x Phi(x)`, through erf: jax.nn.gelu's erfc is slower."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


class Dropout(nn.Module):
    """Zeroes a fraction `rate` of values in training and scales up the rest."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Acts in training only; needs the `dropout` random stream."""
        if not train or self.rate == 0:
            return x
        keep = keep_mask(self.make_rng("dropout"), x.shape, rate=self.rate)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))


class Projection(nn.Module):
    """Maps features to unit vectors: LayerNorm, Dense without bias, L2 norm.

    Attributes:
        dim: Width of the shared space.
        eps: Floor inside the root, so that a zero vector has a finite gradient.
    """

    dim: int = 512
    eps: float = 1e-12

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        """Returns unit vectors, in float32 or wider."""
        x = LayerNorm(name="norm")(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        x = nn.Dense(self.dim, use_bias=False, name="dense")(x)
        return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + self.eps)


class TimeConv(nn.Module):
    """A strided convolution over time, `ceil(t / stride)` outputs."""

    features: int
    kernel: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b n d"]:
        """Pads with zeros at both ends."""
        return nn.Conv(
            self.features,
            (self.kernel,),
            (self.stride,),
            padding=(same_padding(x.shape[1], self.kernel, self.stride),),
            dtype=self.dtype,
            name="conv",
        )(x)


class DepthwiseConv(nn.Module):
    """A convolution over time with one kernel and one bias per channel."""

    kernel: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Pads with zeros at both ends."""
        d = x.shape[-1]
        init: Callable = nn.initializers.lecun_normal(in_axis=0, out_axis=())
        kernel = self.param("kernel", init, (self.kernel, d))
        bias = self.param("bias", nn.initializers.zeros, (d,))
        x = x.astype(self.dtype)
        return depthwise_conv1d(x, kernel) + bias.astype(self.dtype)
