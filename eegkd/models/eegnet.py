"""EEGNet-8,2, the small net that a student is compared with.

Reference:
    Lawhern et al. 2018, "EEGNet: a compact convolutional neural network for
    EEG-based brain-computer interfaces".
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.layers import Dropout
from eegkd.ops.depthwise import depthwise_conv1d
from eegkd.ops.filterbank import filter_bank
from eegkd.typing import Array, Float, Tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class EEGNetConfig:
    """Sizes of an EEGNet.

    Attributes:
        n_chans: EEG channels.
        n_outputs: Classes.
        rate: Rate in Hz; the kernels last half and an eighth of a second (64 and 16
            taps at the published 128 Hz) unless their taps are given.
        kernel: Taps of the temporal convolution.
        separable_kernel: Taps of the separable one.
        num_filters: Temporal filters.
        multiplier: Spatial filters for each of them.
        dropout: Dropout rate: 0.25 across subjects, 0.5 within one.
        momentum: Momentum of BatchNorm's running statistics. Keras' 0.99 needs
            hundreds of updates before evaluation sees what training saw.
        max_norm: Bound of a spatial filter's norm.
        head_max_norm: Bound of the norm of a class's weights.
    """

    n_chans: int = 19
    n_outputs: int = 2
    rate: float = 128.0
    kernel: int | None = None
    separable_kernel: int | None = None
    num_filters: int = 8
    multiplier: int = 2
    dropout: float = 0.25
    momentum: float = 0.9
    max_norm: float = 1.0
    head_max_norm: float = 0.25

    @property
    def taps(self) -> tuple[int, int]:
        """Taps of the temporal and of the separable convolution."""
        return (
            self.kernel or max(round(self.rate / 2), 1),
            self.separable_kernel or max(round(self.rate / 8), 1),
        )


class EEGNet(nn.Module):
    """Temporal, spatial and separable convolutions, then a linear head.

    BatchNorm's running statistics are the collection `batch_stats`; in training,
    `apply(..., mutable=["batch_stats"])` returns them with the tensors.

    Note:
        The norm bounds scale the weights in the forward pass, so any optimiser
        respects them.
    """

    cfg: EEGNetConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b c t"], *, train: bool = False) -> Tensors:
        """Returns `block_0`, `block_1` (also `tokens`), `pooled` and `logits`."""
        cfg, (b, c, t) = self.cfg, x.shape
        if c != cfg.n_chans or t < 32:
            raise ValueError(f"Need [b, {cfg.n_chans}, t >= 32]; got {x.shape}.")
        f, width = cfg.num_filters, cfg.num_filters * cfg.multiplier
        init = nn.initializers.glorot_uniform()

        def norm(x: Array, name: str) -> Array:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=cfg.momentum,
                epsilon=1e-3,
                name=name,
            )(x)

        def drop(x: Array) -> Array:
            return Dropout(cfg.dropout)(x, train=train)

        temporal = self.param("temporal", init, (cfg.taps[0], f))
        x = filter_bank(x.reshape(b * c, t), temporal).reshape(b, c, t, f)
        x = norm(x, "temporal_norm")
        spatial = self.param("spatial", init, (c, f, cfg.multiplier))
        spatial = bound_norm(spatial, cfg.max_norm, axes=0)
        x = jnp.einsum("bctf,cfm->btfm", x, spatial).reshape(b, t, width)
        x = drop(mean_pool(nn.elu(norm(x, "spatial_norm")), 4))
        out = {"block_0": x}
        taps = self.param("depthwise", init, (cfg.taps[1], width))
        x = depthwise_conv1d(x, taps)
        x = nn.Dense(width, use_bias=False, kernel_init=init, name="pointwise")(x)
        x = drop(mean_pool(nn.elu(norm(x, "separable_norm")), 8))
        features = x.reshape(b, -1)
        head = self.param("head", init, (features.shape[1], cfg.n_outputs))
        bias = self.param("head_bias", nn.initializers.zeros, (cfg.n_outputs,))
        logits = features @ bound_norm(head, cfg.head_max_norm, axes=0) + bias
        out |= {"block_1": x, "tokens": x, "pooled": x.mean(axis=1)}
        return out | {"logits": logits}


def bound_norm(weights: Array, bound: float, *, axes: int) -> Array:
    """Scales weights down so that their norms over `axes` are at most `bound`."""
    squares = jnp.sum(weights**2, axis=axes, keepdims=True)
    return weights * jnp.minimum(1, bound * jax.lax.rsqrt(squares + 1e-12))


def mean_pool(x: Float[Array, "b t d"], size: int) -> Float[Array, "b n d"]:
    """Averages over windows of `size`; an incomplete last one is dropped."""
    b, t, d = x.shape
    return x[:, : t - t % size].reshape(b, t // size, size, d).mean(axis=2)
