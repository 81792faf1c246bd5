"""The Conformer of DistilCLIP-EEG: convolution, attention and deep prompts.

Reference:
    Gulati et al. 2020, "Conformer: Convolution-augmented Transformer for Speech
    Recognition"; relative positions as in Dai et al. 2019, "Transformer-XL".
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from eegkd.models.attention import RelativeAttention
from eegkd.models.checks import check_depth
from eegkd.models.layers import DepthwiseConv, Dropout, LayerNorm, TimeConv, gelu
from eegkd.models.prompts import append_tokens
from eegkd.typing import Array, Float, PyTree, Tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConformerConfig:
    """Sizes and switches of a Conformer.

    Attributes:
        n_chans: EEG channels.
        dim: Width of a token.
        depth: Number of blocks.
        ffn_mult: Width of a feed-forward layer, in multiples of `dim`.
        kernel: Taps of the depthwise convolution, odd.
        num_heads: Attention heads.
        rel_pos: Relative positions in attention; without, only the convolutions
            know the order of tokens.
        stem: Convolutions over time, or over time and channels (subsampling by 4).
        stem_kernels: Taps of the two convolutions of the `conv1d` stem.
        stem_strides: Strides of these convolutions; a token covers the product.
        conv_norm: Norm in the convolution module: over a whole example ("group"),
            a token ("layer") or the batch ("batch", with running statistics).
        prompt_in_conv: Let prompts pass through the depthwise convolution, where
            they leak into the last tokens.
        num_prompts: Learnable tokens in every block; 0 for none.
        prompt_init_std: Spread of the prompts' initial values.
        pool: `pooled` is the mean of signal tokens, or a learnable class token.
        dropout: Rate on every residual branch.
        dtype: Type of activations; parameters are float32.
    """

    n_chans: int = 19
    dim: int = 400
    depth: int = 8
    ffn_mult: int = 3
    kernel: int = 31
    num_heads: int = 8
    rel_pos: bool = True
    stem: Literal["conv1d", "conv2d"] = "conv1d"
    stem_kernels: tuple[int, int] = (15, 29)
    stem_strides: tuple[int, int] = (4, 2)
    conv_norm: Literal["group", "layer", "batch"] = "group"
    prompt_in_conv: bool = False
    num_prompts: int = 8
    prompt_init_std: float = 0.02
    pool: Literal["mean", "cls"] = "mean"
    dropout: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Checks options that would fail later or be misread."""
        check_depth(self.depth)
        if self.dim % self.num_heads or self.dim % 2:
            raise ValueError(
                f"dim must be even and a multiple of num_heads={self.num_heads}; "
                f"got dim={self.dim}."
            )
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd; got {self.kernel}.")
        if self.stem == "conv2d" and self.n_chans < 7:
            raise ValueError(
                f"The conv2d stem needs 7 channels or more; got {self.n_chans}."
            )

    @property
    def act_dtype(self) -> jnp.dtype:
        """The activations' dtype as an object."""
        return jnp.dtype(self.dtype)


class FeedForward(nn.Module):
    """LayerNorm, Dense, SiLU, dropout, Dense, dropout."""

    cfg: ConformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Array:
        """Returns the branch, before its residual sum."""
        cfg = self.cfg
        d = x.shape[-1]
        drop = Dropout(cfg.dropout)
        x = LayerNorm(dtype=cfg.act_dtype, name="norm")(x)
        x = nn.silu(nn.Dense(cfg.ffn_mult * d, dtype=cfg.act_dtype, name="up")(x))
        x = nn.Dense(d, dtype=cfg.act_dtype, name="down")(drop(x, train=train))
        return drop(x, train=train)


class ConvModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise, norm, SiLU, pointwise, dropout."""

    cfg: ConformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Array:
        """Returns the branch, before its residual sum."""
        cfg, d = self.cfg, x.shape[-1]
        x = LayerNorm(dtype=cfg.act_dtype, name="norm")(x)
        x = nn.glu(nn.Dense(2 * d, dtype=cfg.act_dtype, name="pointwise_in")(x))
        x = DepthwiseConv(cfg.kernel, dtype=cfg.act_dtype, name="depthwise")(x)
        x = nn.silu(self._norm(x, train=train))
        x = nn.Dense(d, dtype=cfg.act_dtype, name="pointwise_out")(x)
        return Dropout(cfg.dropout)(x, train=train)

    def _norm(self, x: Array, *, train: bool) -> Array:
        dtype = self.cfg.act_dtype
        if self.cfg.conv_norm == "layer":
            return LayerNorm(dtype=dtype, name="inner_norm")(x)
        if self.cfg.conv_norm == "group":
            norm = nn.GroupNorm(1, epsilon=1e-5, dtype=dtype, name="inner_norm")
            return norm(x)
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=dtype,
            name="inner_norm",
        )(x)


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm.

    Its own prompts replace those of the block below. A prompt is a key and a value of
    attention; its own output, which only `prompt_in_conv` reads, is not computed
    otherwise.
    """

    cfg: ConformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        cls: Float[Array, "b 1 d"] | None = None,
        *,
        train: bool,
    ) -> tuple[Array, Array | None]:
        """Returns the signal tokens and, if there is one, the class token."""
        cfg, n = self.cfg, x.shape[1]
        side = self._side_tokens(x, cls)
        num_kept = 0 if cls is None else 1
        if cfg.prompt_in_conv and side is not None:
            num_kept = side.shape[1]
        first = FeedForward(cfg, name="ffn_in")
        x = x + 0.5 * first(x, train=train)
        if side is not None:
            side = side + 0.5 * first(side, train=train)
        attend = RelativeAttention(
            cfg.num_heads, cfg.rel_pos, cfg.dropout, cfg.act_dtype, name="attention"
        )
        y = attend(x, side, num_kept, train=train)
        kept = None if side is None or not num_kept else side[:, :num_kept]
        x = append_tokens(x, kept) + y
        conv = ConvModule(cfg, name="conv")
        if cfg.prompt_in_conv or kept is None:
            x = x + conv(x, train=train)
        else:
            x = x.at[:, :n].add(conv(x[:, :n], train=train))
        x = x[:, : n + (cls is not None)]
        x = x + 0.5 * FeedForward(cfg, name="ffn_out")(x, train=train)
        x = LayerNorm(dtype=cfg.act_dtype, name="norm")(x)
        return x[:, :n], None if cls is None else x[:, n:]

    def _side_tokens(self, x: Array, cls: Array | None) -> Array | None:
        cfg = self.cfg
        if not cfg.num_prompts:
            return cls
        init = nn.initializers.normal(cfg.prompt_init_std)
        prompts = self.param("prompts", init, (cfg.num_prompts, cfg.dim))
        prompts = prompts.astype(x.dtype)[None]
        return prompts if cls is None else append_tokens(cls, prompts)


class Stem(nn.Module):
    """Embeds a signal as tokens by two strided convolutions."""

    cfg: ConformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b c t"]) -> Float[Array, "b n d"]:
        """Returns `H_0`."""
        cfg = self.cfg
        x = x.astype(cfg.act_dtype)
        if cfg.stem == "conv1d":
            x = jnp.swapaxes(x, 1, 2)
            for i in range(2):
                kernel, stride = cfg.stem_kernels[i], cfg.stem_strides[i]
                conv = TimeConv(
                    cfg.dim, kernel, stride, cfg.act_dtype, name=f"conv_{i}"
                )
                x = gelu(conv(x))
            return x
        x = jnp.swapaxes(x, 1, 2)[..., None]  # [b, t, c, 1]
        for i in range(2):
            conv = nn.Conv(
                cfg.dim,
                (3, 3),
                (2, 2),
                padding="VALID",
                dtype=cfg.act_dtype,
                name=f"conv_{i}",
            )
            x = gelu(conv(x))
        x = x.reshape(*x.shape[:2], -1)
        return nn.Dense(cfg.dim, dtype=cfg.act_dtype, name="linear")(x)


class Conformer(nn.Module):
    """Encodes an EEG window as tokens, one about every 8 samples."""

    cfg: ConformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b c t"], *, train: bool = False) -> Tensors:
        """Returns `tokens`, `pooled`, `embed` and `block_0`, `block_1`, ..."""
        cfg = self.cfg
        if x.ndim != 3 or x.shape[1] != cfg.n_chans:
            raise ValueError(f"Need [b, {cfg.n_chans}, t]; got {x.shape}.")
        x = Stem(cfg, name="stem")(x)
        out = {"embed": x}
        cls = None
        if cfg.pool == "cls":
            init = nn.initializers.normal(cfg.prompt_init_std)
            cls = self.param("cls", init, (1, 1, cfg.dim)).astype(x.dtype)
            cls = jnp.broadcast_to(cls, (x.shape[0], 1, cfg.dim))
        for i in range(cfg.depth):
            x, cls = ConformerBlock(cfg, name=f"block_{i}")(x, cls, train=train)
            out[f"block_{i}"] = x
        wide = jnp.promote_types(x.dtype, jnp.float32)
        pooled = x.astype(wide).mean(axis=1) if cls is None else cls[:, 0].astype(wide)
        return out | {"tokens": x, "pooled": pooled}


def skip_init(
    teacher_params: PyTree, student_params: PyTree, columns: Sequence[int] = ()
) -> PyTree:
    """Starts a student from every `depth / depth_student`-th block of its teacher.

    Blocks 1, 3, 5 and 7 of 8 become blocks 0 to 3 of 4, with their prompts; the stem
    and a class token are copied as well.

    Args:
        teacher_params: Parameters of a `Conformer`.
        student_params: Parameters of a `Conformer` that differs in depth alone.
        columns: Channels of the teacher that the student sees, where its stem is
            conv1d; () is all.

    Raises:
        ValueError: If the depths do not divide, or a shape differs.
    """
    deep, shallow = (
        sum(name.startswith("block_") for name in params)
        for params in (teacher_params, student_params)
    )
    if deep % shallow:
        raise ValueError(f"Teacher depth {deep} is no multiple of student's {shallow}.")
    step = deep // shallow
    source = {f"block_{i}": f"block_{step * i + step - 1}" for i in range(shallow)}
    started = {name: teacher_params[source.get(name, name)] for name in student_params}
    if columns:
        conv = started["stem"]["conv_0"]["conv"]
        conv = {**conv, "kernel": conv["kernel"][:, np.array(columns)]}
        started["stem"] = {**started["stem"], "conv_0": {"conv": conv}}
    shapes, wanted = (
        jax.tree.map(jnp.shape, p) for p in (started, dict(student_params))
    )
    if shapes != wanted:
        raise ValueError("skip_init needs a student that differs in depth alone.")
    return started
