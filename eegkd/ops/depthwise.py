"""Depthwise and strided convolutions over time, each in the form its chip likes.

XLA runs a depthwise convolution on a CPU many times slower than the same sum written
as shifted multiply-adds, so the form is chosen when a program is lowered for its
platform: multiply-adds on a CPU, the convolution (cuDNN's, on a GPU) elsewhere.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from eegkd.typing import Array, Float


def same_padding(length: int, kernel: int, stride: int = 1) -> tuple[int, int]:
    """Returns the zeros before and after, for `ceil(length / stride)` outputs."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def depthwise_conv1d(
    x: Float[Array, "b t d"], kernel: Float[Array, "k d"]
) -> Float[Array, "b t d"]:
    """Correlates every channel with its own kernel over time, zero padded ('same').

    `y[b, t, d] = sum_i kernel[i, d] x[b, t + i - (k - 1) // 2, d]`

    Raises:
        ValueError: If the widths differ.
    """
    if x.ndim != 3 or kernel.ndim != 2 or x.shape[-1] != kernel.shape[-1]:
        raise ValueError(f"Need [b, t, d] and [k, d]; got {x.shape}, {kernel.shape}.")
    return _depthwise(x, kernel)


@jax.custom_vjp
def _depthwise(x: Array, kernel: Array) -> Array:
    pads = same_padding(x.shape[1], kernel.shape[0])
    return _correlate(x, kernel, pads)


def _depthwise_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel), (x, kernel)


def _depthwise_bwd(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    before, after = same_padding(x.shape[1], kernel.shape[0])
    dx = _correlate(g, kernel[::-1], (after, before))
    dkernel = lax.platform_dependent(
        x,
        g,
        cpu=functools.partial(_kernel_gradient_sums, pads=(before, after)),
        default=functools.partial(_kernel_gradient_conv, pads=(before, after)),
    )
    return dx, dkernel.astype(kernel.dtype)


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def _correlate(x: Array, kernel: Array, pads: tuple[int, int]) -> Array:
    return lax.platform_dependent(
        x,
        kernel.astype(x.dtype),
        cpu=functools.partial(_correlate_sums, pads=pads),
        default=functools.partial(_correlate_conv, pads=pads),
    )


def _pad_time(x: Array, pads: tuple[int, int]) -> Array:
    return jnp.pad(x, ((0, 0), pads, (0, 0)))


def _correlate_sums(x: Array, kernel: Array, *, pads: tuple[int, int]) -> Array:
    t = x.shape[1]
    padded = _pad_time(x, pads)
    y = padded[:, :t] * kernel[0]
    for i in range(1, kernel.shape[0]):
        y = y + padded[:, i : i + t] * kernel[i]
    return y


def _correlate_conv(x: Array, kernel: Array, *, pads: tuple[int, int]) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel[:, None, :],
        window_strides=(1,),
        padding=(pads,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )


def _kernel_gradient_sums(x: Array, g: Array, *, pads: tuple[int, int]) -> Array:
    t, num_taps = x.shape[1], sum(pads) + 1
    # One fused product and sum a tap: a reduction over windows would store them all.
    wide = jnp.promote_types(x.dtype, jnp.float32)
    padded, g = _pad_time(x, pads).astype(wide), g.astype(wide)

    def one_tap(i: Array) -> Array:
        return jnp.sum(lax.dynamic_slice_in_dim(padded, i, t, 1) * g, axis=(0, 1))

    return lax.map(one_tap, jnp.arange(num_taps))


def _kernel_gradient_conv(x: Array, g: Array, *, pads: tuple[int, int]) -> Array:
    like = jnp.zeros((sum(pads) + 1, x.shape[-1]), x.dtype)
    pull = jax.vjp(lambda kernel: _correlate_conv(x, kernel, pads=pads), like)[1]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return pull(g)[0].astype(wide)
