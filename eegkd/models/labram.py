"""LaBraM: a Transformer over all patches of all channels, known by their names.

Reference:
    Jiang et al. 2024, "Large Brain Model for Learning Generic Representations with
    Tremendous EEG Data in BCI", arXiv 2405.18765, and its code, 935963004/LaBraM
    (modeling_finetune.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eegkd.errors import InputError
from eegkd.models.attention import softmax_average
from eegkd.models.grid import PATCH, GridConfig, convolve_patches, split_patches
from eegkd.models.layers import Dropout, gelu
from eegkd.ops.head_products import head_average, head_scores
from eegkd.typing import Array, Float, Tensors

_NAMES = (
    "FP1 FPZ FP2 AF9 AF7 AF5 AF3 AF1 AFZ AF2 AF4 AF6 AF8 AF10 F9 F7 F5 F3 "
    "F1 FZ F2 F4 F6 F8 F10 FT9 FT7 FC5 FC3 FC1 FCZ FC2 FC4 FC6 FT8 FT10 T9 "
    "T7 C5 C3 C1 CZ C2 C4 C6 T8 T10 TP9 TP7 CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 "
    "TP10 P9 P7 P5 P3 P1 PZ P2 P4 P6 P8 P10 PO9 PO7 PO5 PO3 PO1 POZ PO2 PO4 "
    "PO6 PO8 PO10 O1 OZ O2 O9 CB1 CB2 IZ O10 T3 T5 T4 T6 M1 M2 A1 A2 CFC1 "
    "CFC2 CFC3 CFC4 CFC5 CFC6 CFC7 CFC8 CCP1 CCP2 CCP3 CCP4 CCP5 CCP6 CCP7 "
    "CCP8 T1 T2 FTT9h TTP7h TPP9h FTT10h TPP8h TPP10h FP1-F7 F7-T7 T7-P7 "
    "P7-O1 FP2-F8 F8-T8 T8-P8 P8-O2"
)
LABRAM_CHANNELS = tuple(_NAMES.split())
"""The 128 channel names of LaBraM, in the order of its position embeddings."""

_KERNELS = ((15, 8, 7), (3, 1, 1), (3, 1, 1))
"""Taps, stride and padding of the three convolutions; 200 samples become 25 steps."""

_STEPS = 25
_GROUPS = 4
_LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6)
_ROWS = {name.upper(): i + 1 for i, name in enumerate(LABRAM_CHANNELS)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabramConfig(GridConfig):
    """Sizes of a LaBraM; the defaults are those of LaBraM-Base.

    Attributes:
        filters: Filters of the convolutions that embed a patch; 1/25 of the width.
        depth: Layers.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layer.
        max_patches: Rows of the time embedding: the longest window, in patches.
        pool: Source of `pooled`: the normalised mean of tokens, or class token.
        dropout: Rate after the embedding, on attention weights and in both branches.
        drop_path: Rate at which the last layer's branches are left out, per example;
            the first layer's never, in between linearly.
    """

    filters: int = 8
    depth: int = 12
    num_heads: int = 10
    ffn_dim: int = 800
    max_patches: int = 16
    pool: Literal["mean", "cls"] = "mean"
    dropout: float = 0.0
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        """Checks the widths, the length, and that all channels have an embedding."""
        super().__post_init__()
        if self.filters % _GROUPS or self.dim % self.num_heads:
            raise ValueError(
                f"filters must be a multiple of {_GROUPS}, and 25 times as much one of "
                f"num_heads; got filters={self.filters}, num_heads={self.num_heads}."
            )
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1); got {self.drop_path}.")
        if self.num_patches > self.max_patches:
            raise InputError(
                f"LaBraM takes windows of {self.max_patches} patches of a second at "
                f"most; got num_patches={self.num_patches}: cut shorter windows with "
                f"--data.window_s {self.max_patches}."
            )
        self.rows()

    @property
    def dim(self) -> int:
        """Width of a token."""
        return _STEPS * self.filters

    def rows(self) -> tuple[int, ...]:
        """Returns the rows of the position embedding; row 0 is the class token's.

        Upper and lower case are one; otherwise names are exact, "T3" and "T7" being
        different rows that were trained on different corpora.

        Raises:
            InputError: If a channel has none.
        """
        unknown = [name for name in self.channels if name.upper() not in _ROWS]
        if unknown:
            raise InputError(
                f"channels: LaBraM has no embedding for {', '.join(unknown)}: leave "
                "them out, or name others of its 128 (eegkd.models.LABRAM_CHANNELS) "
                "with --data.channels."
            )
        return tuple(_ROWS[name.upper()] for name in self.channels)


class TemporalConv(nn.Module):
    """Embeds raw patches by three convolutions over time."""

    filters: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b n p"]) -> Float[Array, "b n d"]:
        """Embeds patches of 200 samples."""
        y = convolve_patches(
            x, filters=self.filters, groups=_GROUPS, kernels=_KERNELS, dtype=self.dtype
        )
        # A feature's index is its step in time times the filters, plus its filter.
        return y.reshape(*x.shape[:2], -1)


class LabramLayer(nn.Module):
    """Pre-norm attention and feed-forward, each scaled by learnable gains."""

    cfg: LabramConfig
    train: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], step: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """Returns the tokens twice: as carry and as output of the scan.

        Args:
            x: Tokens, class token first.
            step: Number of the layer from 1, and its rate of `drop_path`.
        """
        cfg, dtype = self.cfg, self.cfg.act_dtype
        (number, rate), drop = step, Dropout(cfg.dropout)
        # The last layers of both branches start smaller the deeper they stand.
        small = _scaled_normal(jax.lax.rsqrt(2.0 * number))

        def dense(features: int, name: str, init: Callable = _normal) -> nn.Dense:
            return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)

        def add(x: Array, y: Array, name: str) -> Array:
            gain = self.param(name, nn.initializers.constant(0.1), (cfg.dim,))
            y = self._drop_path(y * gain.astype(dtype), rate)
            return x + y

        y = self._attend(_LayerNorm(dtype=dtype, name="attention_norm")(x))
        y = drop(dense(cfg.dim, "attention_out", small)(y), train=self.train)
        x = add(x, y, "attention_gain")
        y = _LayerNorm(dtype=dtype, name="ffn_norm")(x)
        y = dense(cfg.dim, "down", small)(gelu(dense(cfg.ffn_dim, "up")(y)))
        x = add(x, drop(y, train=self.train), "ffn_gain")
        return x, x

    def _attend(self, x: Array) -> Array:
        cfg, (b, n, d) = self.cfg, x.shape
        dtype, width = cfg.act_dtype, d // cfg.num_heads
        qkv = nn.Dense(
            3 * d, use_bias=False, dtype=dtype, kernel_init=_normal, name="qkv"
        )(x)
        qkv = qkv.reshape(b, n, 3, cfg.num_heads, width).transpose(2, 0, 3, 1, 4)
        q, k = (
            _LayerNorm(dtype=dtype, name=name)(part)
            for name, part in (("query_norm", qkv[0]), ("key_norm", qkv[1]))
        )
        scores = head_scores(q * width**-0.5, k)
        drop = functools.partial(Dropout(cfg.dropout), train=self.train)
        out = softmax_average(scores, qkv[2], drop=drop, average=head_average)
        return out.transpose(0, 2, 1, 3).reshape(b, n, d)

    def _drop_path(self, y: Array, rate: Array) -> Array:
        if not self.train or self.cfg.drop_path == 0:
            return y
        keep = 1 - rate
        drawn = jax.random.bernoulli(self.make_rng("dropout"), keep, (y.shape[0], 1, 1))
        return jnp.where(drawn, y / keep.astype(y.dtype), jnp.zeros_like(y))


class Labram(nn.Module):
    """Encodes a grid of patches with a class token; equal layers are scanned."""

    cfg: LabramConfig

    @property
    def grid(self) -> tuple[int, int]:
        """Channels and patches that the tokens stand for."""
        return self.cfg.grid

    @nn.compact
    def __call__(self, x: Float[Array, "b c t"], *, train: bool = False) -> Tensors:
        """Encodes windows.

        Args:
            x: Signal at 200 Hz, in the unit of `cfg.scale`.
            train: True if dropout and `drop_path` act.

        Returns:
            `embed` and `block_i`, of patches alone; `tokens` and `cls` after the final
            norm, and `pooled`.

        Raises:
            ValueError: If the signal is not of the configured grid.
        """
        cfg, dtype = self.cfg, self.cfg.act_dtype
        (c, n), d = cfg.grid, cfg.dim
        patches = split_patches(x, cfg).reshape(-1, c * n, PATCH)
        x = TemporalConv(cfg.filters, dtype, name="embedding")(patches)
        tables = (
            ("cls_token", 1),
            ("position", len(LABRAM_CHANNELS) + 1),
            ("time", cfg.max_patches),
        )
        cls, position, time = (
            self.param(name, _normal, (rows, d)).astype(dtype) for name, rows in tables
        )
        place = position[np.array(cfg.rows())][:, None] + time[:n]
        first = jnp.broadcast_to(cls + position[:1], (x.shape[0], 1, d))
        x = jnp.concatenate([first, x + place.reshape(c * n, d)], axis=1)
        x = Dropout(cfg.dropout)(x, train=train)
        layers = nn.scan(
            LabramLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=cfg.depth,
        )(cfg, train, name="layers")
        numbers = jnp.arange(1, cfg.depth + 1, dtype=jnp.float32)
        rates = jnp.linspace(0, cfg.drop_path, cfg.depth)
        out = {"embed": x[:, 1:]}
        x, blocks = layers(x, (numbers, rates))
        out |= {f"block_{i}": blocks[i, :, 1:] for i in range(cfg.depth)}
        norm = _LayerNorm(dtype=dtype, name="norm")
        both = norm(x)
        cls, tokens = both[:, 0], both[:, 1:]
        pooled = cls if cfg.pool == "cls" else norm(x[:, 1:].mean(axis=1))
        return out | {"tokens": tokens, "cls": cls, "pooled": pooled}


def _scaled_normal(scale: Array | float) -> Callable[..., Array]:
    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return 0.02 * scale * jax.random.normal(key, shape, dtype)

    return init


_normal = _scaled_normal(1.0)
