"""Signals as grids of channels and one-second patches, as foundation models see them.

Tokens are channel-major and patch-minor: token `c * num_patches + n` is patch `n` of
channel `c`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.errors import InputError
from eegkd.models.layers import gelu
from eegkd.typing import Array, Float

RATE = 200.0
PATCH = 200
_SCALES = {"uV": 0.01, "mV": 10.0, "zscore": 1.0}
TEN_TWENTY = (
    *("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2"),
    *("F7", "F8", "T7", "T8", "P7", "P8", "Fz", "Cz", "Pz"),
)
"""The electrodes and their order in the pre-training of CBraMod."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Input of a model: named channels, patches of one second at 200 Hz.

    Attributes:
        channels: Names of the signal's channels, in its order.
        num_patches: Patches per window; it lasts as many seconds.
        scale: Factor from the signal's unit to the model's, which is 0.1 mV: 0.01 for
            microvolts, 1 for a signal that is scaled already.
        dtype: Type of activations; parameters, norms' statistics, softmaxes: float32.
    """

    channels: tuple[str, ...] = TEN_TWENTY
    num_patches: int = 10
    scale: float = 0.01
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Checks that there are channels and patches."""
        if not self.channels or self.num_patches < 1:
            raise ValueError(
                "Need one channel and one patch or more; got "
                f"{len(self.channels)} channels, num_patches={self.num_patches}."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Channels and patches."""
        return len(self.channels), self.num_patches

    @property
    def act_dtype(self) -> jnp.dtype:
        """The activations' dtype as an object."""
        return jnp.dtype(self.dtype)


def split_patches(x: Float[Array, "b c t"], cfg: GridConfig) -> Float[Array, "b c n p"]:
    """Cuts a signal into scaled patches.

    Raises:
        ValueError: If it is not of the configured grid.
    """
    c, n = cfg.grid
    if x.shape[1:] != (c, n * PATCH):
        raise ValueError(
            f"Need [b, {c}, {n * PATCH}]: {c} channels, {n} patches of {PATCH} "
            f"samples; got {x.shape}."
        )
    return x.reshape(-1, c, n, PATCH) * cfg.scale


def check_windows(
    cfg: GridConfig,
    *,
    channels: Sequence[str],
    rate: float,
    n_times: int,
    source: str,
    units: Sequence[str] = (),
) -> None:
    """Checks windows against the input that a model was built for.

    Args:
        cfg: Input of the model.
        channels: Channels of the windows, in their order.
        rate: Rate of the windows, in Hz.
        n_times: Samples per window.
        source: Origin of the windows, for the message.
        units: Unit per channel, "uV", "mV" or "zscore"; () is not compared.

    Raises:
        InputError: At the first difference, with its cure.
    """
    if rate != RATE:
        raise InputError(
            f"{source}: rate is {rate:g} Hz, and the model was trained at {RATE:g} Hz: "
            f"prepare the windows with --data.rate {RATE:g}."
        )
    wrong = sorted({unit for unit in units if _SCALES.get(unit) != cfg.scale})
    if wrong:
        raise InputError(
            f"{source}: units are {', '.join(wrong)}, and the model's scale, "
            f"{cfg.scale:g}, is for another: prepare the windows in microvolts with "
            "--data.zscore none for a scale of 0.01; z-scores have a scale of 1."
        )
    names, wanted = ([n.upper() for n in both] for both in (channels, cfg.channels))
    if names != wanted:
        what = "in another order" if sorted(names) == sorted(wanted) else "others"
        raise InputError(
            f"{source}: channels are {', '.join(channels)}, {what} than the model's: "
            f"prepare the windows with --data.channels {' '.join(cfg.channels)}, or "
            "build the model for these."
        )
    if n_times != cfg.num_patches * PATCH:
        raise InputError(
            f"{source}: windows have {n_times} samples, and the model takes "
            f"{cfg.num_patches} patches of {PATCH}: prepare the windows with "
            f"--data.window_s {cfg.num_patches}, or build the model for these."
        )


def unit_scale(units: Sequence[str], *, source: str) -> float:
    """Returns the factor from the windows' unit to the model's.

    Args:
        units: Unit per channel, "uV", "mV" or "zscore".
        source: Origin of the windows, for the message.

    Raises:
        InputError: If there is another, or channels differ.
    """
    scales = {_SCALES.get(unit) for unit in units}
    scale = scales.pop() if len(scales) == 1 else None
    if scale is None:
        raise InputError(
            f"{source}: units are {', '.join(sorted(set(units)))}, and the model takes "
            f"one of {', '.join(_SCALES)} for all channels: keep channels of one unit "
            "with --data.channels."
        )
    return scale


def convolve_patches(
    x: Float[Array, "b n p"],
    *,
    filters: int,
    groups: int,
    kernels: Sequence[tuple[int, int, int]],
    dtype: jnp.dtype,
) -> Float[Array, "b n s f"]:
    """Applies convolutions over each patch's time, GroupNorm and GELU after each.

    Called inside a module, which then owns `conv_i` and `norm_i`. The norms' statistics
    span all patches of an example: more patches change all.

    Args:
        x: Patches.
        filters: Filters of each convolution.
        groups: Groups of each norm.
        kernels: Taps, stride and padding of each convolution.
        dtype: Type of activations.

    Returns:
        Steps in time, and filters.
    """
    y = x[..., None].astype(dtype)
    for i, (taps, stride, pad) in enumerate(kernels):
        init = uniform_fan_in(taps * y.shape[-1])
        y = nn.Conv(
            filters,
            (taps,),
            (stride,),
            padding=((pad, pad),),
            dtype=dtype,
            kernel_init=init,
            bias_init=init,
            name=f"conv_{i}",
        )(y)
        y = nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, name=f"norm_{i}")(y)
        y = gelu(y)
    return y


class GridConv(nn.Module):
    """A convolution over channels and patches, one kernel and one bias per feature.

    Attributes:
        kernel: Taps over channels and over patches, both odd.
        dtype: Type of activations.
    """

    kernel: tuple[int, int]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b c n d"]) -> Float[Array, "b c n d"]:
        """Pads with zeros on all sides."""
        d = x.shape[-1]
        init = uniform_fan_in(self.kernel[0] * self.kernel[1])
        kernel = self.param("kernel", init, (*self.kernel, d))
        bias = self.param("bias", init, (d,))
        y = depthwise_conv2d(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)


def depthwise_conv2d(
    x: Float[Array, "b c n d"], kernel: Float[Array, "i j d"]
) -> Float[Array, "b c n d"]:
    """Correlates every feature map with its own kernel, zero padded to the same size.

    `y[b, c, n, d] = sum_ij kernel[i, j, d] x[b, c + i - I // 2, n + j - J // 2, d]`

    On a CPU the channel axis is a product with a banded matrix: for 16 channels, 10
    patches, width 200 and 19 x 7 taps that is 250 times faster than XLA's convolution.

    Raises:
        ValueError: If a kernel size is even.
    """
    if kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError(f"Need odd kernel sizes; got {kernel.shape}.")
    return jax.lax.platform_dependent(x, kernel, cpu=_banded, default=_convolve)


def _banded(x: Array, kernel: Array) -> Array:
    (_, c, n, _), (i, j, _) = x.shape, kernel.shape
    # Row `first - k` of the padded kernel is what channel k's output takes from the
    # first channel. Slices, because a gather has a slow gradient.
    half, first = i // 2, max(i // 2, c - 1)
    rows = jnp.pad(kernel, ((first - half, first - half), (0, 0), (0, 0)))
    band = jnp.stack([rows[first - k : first - k + c] for k in range(c)])
    padded = jnp.pad(x, ((0, 0), (0, 0), (j // 2, j // 2), (0, 0)))
    shifted = jnp.stack([padded[:, :, s : s + n] for s in range(j)], axis=3)
    return jnp.einsum("benjd,cejd->bcnd", shifted, band)


def _convolve(x: Array, kernel: Array) -> Array:
    i, j, d = kernel.shape
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        window_strides=(1, 1),
        padding=((i // 2, i // 2), (j // 2, j // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=d,
    )


def uniform_fan_in(fan_in: int) -> Callable[..., Array]:
    """Makes PyTorch's default initialiser: uniform within `1 / sqrt(fan_in)`."""
    bound = fan_in**-0.5

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
