"""A bank of filters applied to every series: EEGNet's temporal convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.ops.depthwise import same_padding
from eegkd.typing import Array, Float


def filter_bank(x: Float[Array, "n t"], kernels: Float[Array, "k f"]) -> Array:
    """Correlates every series with every kernel, zeros beyond the ends.

    `out[n, t, f] = sum_j kernels[j, f] x[n, t + j - (k - 1) // 2]`

    On a CPU this is one product with a banded matrix per block of `k` samples, which
    costs twice the multiplications and is many times faster than XLA's convolution
    with one input channel; elsewhere it is the convolution.

    Returns:
        The filtered series, [n, t, f].
    """
    return jax.lax.platform_dependent(x, kernels, cpu=_banded, default=_convolve)


def _convolve(x: Array, kernels: Array) -> Array:
    return jax.lax.conv_general_dilated(
        x[..., None],
        kernels[:, None],
        window_strides=(1,),
        padding=(same_padding(x.shape[1], len(kernels)),),
        dimension_numbers=("NTC", "TIO", "NTC"),
    )


def _banded(x: Array, kernels: Array) -> Array:
    (n, t), (k, f) = x.shape, kernels.shape
    before, _ = same_padding(t, k)
    num_blocks = -(-t // k)
    padded = jnp.pad(x, ((0, 0), (before, num_blocks * k + k - 1 - before - t + k)))
    first = padded[:, : num_blocks * k].reshape(n, num_blocks, k)
    second = padded[:, k : (num_blocks + 1) * k].reshape(n, num_blocks, k)
    blocks = jnp.concatenate([first, second], axis=-1)
    # Row i of the band meets output j through tap i - j; beyond the taps it is zero.
    taps = jnp.concatenate([kernels, jnp.zeros((1, f), kernels.dtype)])
    out = jnp.einsum("nbi,ijf->nbjf", blocks, taps[_band(k)])
    return out.reshape(n, num_blocks * k, f)[:, :t]


@functools.cache
def _band(k: int) -> np.ndarray:
    offset = np.arange(2 * k)[:, None] - np.arange(k)[None]
    return np.where((offset >= 0) & (offset < k), offset, k)
