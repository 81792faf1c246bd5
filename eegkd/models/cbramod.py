"""CBraMod: criss-cross attention over channels and over patches.

Reference:
    Wang et al. 2025, "CBraMod: A Criss-Cross Brain Foundation Model for EEG Decoding",
    arXiv 2412.07236, and its code, wjq-learning/CBraMod.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eegkd.models.attention import softmax_average
from eegkd.models.grid import (
    PATCH,
    GridConfig,
    GridConv,
    convolve_patches,
    split_patches,
    uniform_fan_in,
)
from eegkd.models.layers import Dropout, LayerNorm, gelu
from eegkd.models.stack import UNROLLED
from eegkd.ops.head_products import head_average, head_scores
from eegkd.typing import Array, Bool, Float, Tensors

_KERNELS = ((49, 25, 24), (3, 1, 1), (3, 1, 1))
"""Taps, stride and padding of the three convolutions; 200 samples become 8 steps."""

_STEPS = 8
_KEEP = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CBraModConfig(GridConfig):
    """Sizes of a CBraMod; the defaults are the published ones.

    Attributes:
        filters: Filters of the convolutions that embed a patch; an eighth of the width.
        groups: Groups of their GroupNorms.
        depth: Layers.
        num_heads: Attention heads: half of them across channels, half across patches.
        ffn_dim: Width of the feed-forward layer.
        dropout: Rate on the spectrum, attention weights, and in and after each branch.
        reconstruct: True if `reconstruction` exists: the layer that pre-training
            predicts raw patches with, and fine-tuning leaves out.
    """

    filters: int = 25
    groups: int = 5
    depth: int = 12
    num_heads: int = 8
    ffn_dim: int = 800
    dropout: float = 0.1
    reconstruct: bool = False

    def __post_init__(self) -> None:
        """Checks that groups and heads divide what they share."""
        super().__post_init__()
        if self.filters % self.groups:
            raise ValueError(
                f"filters={self.filters} is no multiple of groups={self.groups}."
            )
        if self.num_heads % 2 or self.dim % self.num_heads:
            raise ValueError(
                "num_heads must be even and divide the width; got "
                f"num_heads={self.num_heads}, width {self.dim}."
            )

    @property
    def dim(self) -> int:
        """Width of a token."""
        return _STEPS * self.filters


class PatchEmbedding(nn.Module):
    """Embeds raw patches: convolutions plus spectrum, plus a position from neighbours.

    Attributes:
        filters: Filters of the convolutions.
        groups: Groups of the norms.
        dropout: Rate on the spectrum.
        dtype: Type of activations.
        position_kernel: Channels and patches that a position is made from.
        spectrum: True if the spectrum is added; the published model has it.
    """

    filters: int = 25
    groups: int = 5
    dropout: float = 0.1
    dtype: jnp.dtype = jnp.dtype("float32")
    position_kernel: tuple[int, int] = (19, 7)
    spectrum: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b c n p"], *, train: bool
    ) -> Float[Array, "b c n d"]:
        """Embeds patches of 200 samples."""
        b, c, n, p = x.shape
        dim = _STEPS * self.filters
        y = convolve_patches(
            x.reshape(b, c * n, p),
            filters=self.filters,
            groups=self.groups,
            kernels=_KERNELS,
            dtype=self.dtype,
        )
        # A feature's index is its filter times 8 plus its step in time.
        y = y.swapaxes(2, 3).reshape(b, c, n, dim)
        if self.spectrum:
            bins = patch_spectrum(x).astype(self.dtype)
            bins = _dense(dim, self.dtype, "spectral", bins.shape[-1])(bins)
            y = y + Dropout(self.dropout)(bins, train=train)
        return y + GridConv(self.position_kernel, self.dtype, name="position")(y)


def patch_spectrum(x: Float[Array, "*b p"]) -> Float[Array, "*b f"]:
    """Computes `|rfft(x)| / p` as a product with the transform's matrix.

    Graphs with an FFT in them export wrongly, and float32's full precision is asked for
    because an accelerator's default would round bins away. The floor inside the root,
    1e-20, does not change values and makes the gradient at a silent patch zero.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    both = jnp.matmul(
        wide,
        jnp.asarray(_dft_matrix(x.shape[-1]), wide.dtype),
        precision=jax.lax.Precision.HIGHEST,
    )
    re, im = jnp.split(both, 2, axis=-1)
    return jnp.sqrt(re**2 + im**2 + 1e-20)


@functools.cache
def _dft_matrix(p: int) -> np.ndarray:
    angles = 2 * np.pi * np.outer(np.arange(p), np.arange(p // 2 + 1)) / p
    return np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) / p


class AxisAttention(nn.Module):
    """Multi-head self-attention along the second last axis, separately over others."""

    num_heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "b m n d"], *, train: bool
    ) -> Float[Array, "b m n d"]:
        """Attends along `n`."""
        b, m, n, d = x.shape
        # One axis of rows: over several, a CPU's kernel gradient takes twice as long.
        qkv = nn.Dense(
            3 * d,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="qkv",
        )(x.reshape(-1, d))
        qkv = qkv.reshape(b * m, n, 3, self.num_heads, d // self.num_heads)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = head_scores(q * q.shape[-1] ** -0.5, k)
        drop = functools.partial(Dropout(self.dropout), train=train)
        y = softmax_average(scores, v, drop=drop, average=head_average)
        y = y.transpose(0, 2, 1, 3)
        out = nn.Dense(d, dtype=self.dtype, kernel_init=_kaiming, name="out")
        return out(y.reshape(-1, d)).reshape(b, m, n, d)


class CrissCrossLayer(nn.Module):
    """Pre-norm attention, half of the features along each axis, then feed-forward."""

    cfg: CBraModConfig
    train: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b c n d"], _: None) -> tuple[Array, Array]:
        """Returns the tokens twice: as carry and as output of the scan."""
        cfg, dtype, train = self.cfg, self.cfg.act_dtype, self.train
        half, drop = cfg.dim // 2, Dropout(cfg.dropout)

        def attend(name: str, x: Array) -> Array:
            attention = AxisAttention(cfg.num_heads // 2, cfg.dropout, dtype, name=name)
            return attention(x, train=train)

        y = LayerNorm(dtype=dtype, name="attention_norm")(x)
        over_channels = attend("spatial", y[..., :half].swapaxes(1, 2)).swapaxes(1, 2)
        y = jnp.concatenate([over_channels, attend("temporal", y[..., half:])], axis=-1)
        x = x + drop(y, train=train)
        y = LayerNorm(dtype=dtype, name="ffn_norm")(x).reshape(-1, cfg.dim)
        y = drop(gelu(_dense(cfg.ffn_dim, dtype, "up", cfg.dim)(y)), train=train)
        y = drop(_dense(cfg.dim, dtype, "down", cfg.ffn_dim)(y), train=train)
        x = x + y.reshape(x.shape)
        return x, x


class CBraMod(nn.Module):
    """Encodes a grid of patches; equal layers are scanned."""

    cfg: CBraModConfig

    @property
    def grid(self) -> tuple[int, int]:
        """Channels and patches that the tokens stand for."""
        return self.cfg.grid

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b c t"],
        masked: Bool[Array, "b c n"] | None = None,
        *,
        train: bool = False,
    ) -> Tensors:
        """Encodes windows.

        Args:
            x: Signal at 200 Hz, in the unit of `cfg.scale`.
            masked: Patches to hide, as in pre-training: True is replaced by the mask
                token, which is never trained.
            train: True if dropout acts.

        Returns:
            `embed`, `block_i` and `tokens` (there is no final norm), their mean
            `pooled`, and where asked for `reconstruction`, of scaled raw patches.

        Raises:
            ValueError: If the signal is not of the configured grid.
        """
        cfg = self.cfg
        x = split_patches(x, cfg)
        mask_token = self.param("mask_token", nn.initializers.zeros, (PATCH,))
        if masked is not None:
            hidden = jax.lax.stop_gradient(mask_token).astype(x.dtype)
            x = jnp.where(masked[..., None], hidden, x)
        embedding = PatchEmbedding(
            cfg.filters, cfg.groups, cfg.dropout, cfg.act_dtype, name="embedding"
        )
        x = embedding(x, train=train)
        # All but products is cheaper to compute again than to write and read. Layers in
        # a row need no copies of their weights and of what is kept of them.
        layer = nn.remat(CrissCrossLayer, policy=_KEEP, prevent_cse=False)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=cfg.depth,
            unroll=min(cfg.depth, UNROLLED),
        )(cfg, train, name="layers")
        _, blocks = layers(x, None)
        c, n = cfg.grid
        out = {"embed": x, **{f"block_{i}": blocks[i] for i in range(cfg.depth)}}
        out = {name: y.reshape(-1, c * n, cfg.dim) for name, y in out.items()}
        tokens = out[f"block_{cfg.depth - 1}"]
        out |= {"tokens": tokens, "pooled": tokens.mean(axis=1)}
        if cfg.reconstruct:
            proj_out = _dense(PATCH, cfg.act_dtype, "proj_out", cfg.dim)
            out["reconstruction"] = proj_out(tokens)
        return out


def _dense(features: int, dtype: jnp.dtype, name: str, fan_in: int) -> nn.Dense:
    return nn.Dense(
        features,
        dtype=dtype,
        kernel_init=_kaiming,
        bias_init=uniform_fan_in(fan_in),
        name=name,
    )
