"""CLIP: a vision tower, a text tower and the space that both are projected into.

Reference:
    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
    Supervision".
"""

import dataclasses
import math
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.checks import check_choice
from eegkd.models.layers import gelu
from eegkd.models.stack import Remat, block_numbers, scan_layers
from eegkd.ops.attention import dot_product_attention
from eegkd.ops.dtypes import promote
from eegkd.ops.masks import boolean_mask
from eegkd.typing import Array, Bool, Float, Int, Mask, Tensors


def quick_gelu(x: Array) -> Array:
    """Computes `x sigmoid(1.702 x)`, which OpenAI's towers have in place of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TowerConfig:
    """Sizes that both towers have; see `ClipVisionConfig`."""

    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    ffn_dim: int = 3072
    eps: float = 1e-5
    activation: str = "quick_gelu"
    layers_out: tuple[int, ...] = ()
    remat: Remat = "none"
    init_std: float = 0.02
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Checks heads, layers and choices."""
        if self.dim % self.num_heads:
            raise ValueError(
                f"dim={self.dim} is no multiple of num_heads={self.num_heads}."
            )
        check_choice("activation", self.activation, ("quick_gelu", "gelu"))
        check_choice("remat", self.remat, get_args(Remat))
        block_numbers(self.layers_out, self.depth)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipVisionConfig(_TowerConfig):
    """Sizes of a vision tower; the defaults are those of ViT-L/14 at 336 pixels.

    Attributes:
        dim: Width.
        depth: Layers.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layer.
        eps: Epsilon of every LayerNorm.
        activation: Activation of the feed-forward layer, quick_gelu or gelu.
        layers_out: Layers to return, as `block_i`; negative numbers count from the end,
            so that LLaVA's -2 of 24 is `block_22`.
        remat: Policy of what a backward pass computes again.
        init_std: Spread of initial weights, as CLIP's `initializer_range`.
        dtype: Type of the computation.
        param_dtype: Type of the parameters.
        image_size: Side of an image in pixels.
        patch_size: Side of a patch.
    """

    dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    ffn_dim: int = 4096
    image_size: int = 336
    patch_size: int = 14

    def __post_init__(self) -> None:
        """Checks the patches too."""
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size={self.image_size} is no multiple of "
                f"patch_size={self.patch_size}."
            )

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig(_TowerConfig):
    """Sizes of a text tower; the defaults are those of ViT-L/14.

    Attributes:
        dim: Width; what is not named here is as in `ClipVisionConfig`.
        vocab_size: Number of token ids.
        max_positions: Longest text, in tokens.
        eos_id: Token whose place is pooled, at its first occurrence; None takes the
            highest id of a text, as the oldest checkpoints (`eos_token_id` 2) want.
    """

    vocab_size: int = 49408
    max_positions: int = 77
    eos_id: int | None = 49407


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Both towers and their common space.

    Attributes:
        vision: The vision tower.
        text: The text tower.
        projection_dim: Width of the common space.
    """

    vision: ClipVisionConfig = ClipVisionConfig()
    text: ClipTextConfig = ClipTextConfig()
    projection_dim: int = 768


PRESETS: dict[str, ClipConfig] = {
    "clip-vit-large-patch14-336": ClipConfig(),
    "clip-vit-large-patch14": ClipConfig(vision=ClipVisionConfig(image_size=224)),
}
"""Published sizes, by their name on Hugging Face."""


class ClipLayer(nn.Module):
    """Attention and feed-forward, each after its norm; for `scan_layers`."""

    cfg: _TowerConfig
    causal: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], _: None, mask: Bool[Array, "b 1 1 n"] | None
    ) -> tuple[Array, None]:
        """Returns the tokens, and no output of the scan."""
        cfg = self.cfg
        heads = (*x.shape[:2], cfg.num_heads, cfg.dim // cfg.num_heads)
        act = gelu if cfg.activation == "gelu" else quick_gelu
        y = _norm(cfg, "norm1")(x)
        q, k, v = (
            _dense(cfg, cfg.dim, name)(y).reshape(heads)
            for name in ("query", "key", "value")
        )
        y = dot_product_attention(q, k, v, mask=mask, causal=self.causal)
        x = x + _dense(cfg, cfg.dim, "out")(y.reshape(x.shape))
        y = act(_dense(cfg, cfg.ffn_dim, "up")(_norm(cfg, "norm2")(x)))
        return x + _dense(cfg, cfg.dim, "down")(y), None


class ClipVision(nn.Module):
    """Encodes images as a class token and one token per patch, row by row."""

    cfg: ClipVisionConfig

    @nn.compact
    def __call__(self, pixels: Float[Array, "b s s 3"]) -> Tensors:
        """Encodes images.

        Args:
            pixels: Images normalised by CLIP's mean and spread, channels last.

        Returns:
            `embed` and the `block_i` asked for, `[b, 1 + n, d]`, class token first;
            `tokens`, the last block's, which has no norm; `pooled [b, d]`, its class
            token after the last norm.

        Raises:
            ValueError: If images have another size.
        """
        cfg = self.cfg
        if pixels.shape[1:] != (cfg.image_size, cfg.image_size, 3):
            raise ValueError(
                f"Need images [{cfg.image_size}, {cfg.image_size}, 3]; got "
                f"{pixels.shape[1:]}."
            )
        side = (cfg.patch_size, cfg.patch_size)
        init = nn.initializers.normal(cfg.init_std)
        patches = nn.Conv(
            cfg.dim,
            side,
            side,
            padding="VALID",
            use_bias=False,
            kernel_init=init,
            dtype=cfg.dtype,
            param_dtype=cfg.param_dtype,
            name="patch",
        )(pixels)
        b = len(pixels)
        first = self.param("class_embedding", init, (cfg.dim,), cfg.param_dtype)
        first = jnp.broadcast_to(first.astype(cfg.dtype), (b, 1, cfg.dim))
        x = jnp.concatenate([first, patches.reshape(b, -1, cfg.dim)], axis=1)
        x = x + _embed(cfg, x.shape[1], "position")(jnp.arange(x.shape[1]))
        x = _norm(cfg, "pre_norm")(x)
        out = {"embed": x}
        x, blocks = _scan(ClipLayer(cfg, causal=False, name="layers"), x, None, cfg)
        pooled = _norm(cfg, "post_norm")(x[:, 0])
        return out | blocks | {"tokens": x, "pooled": pooled}


class ClipText(nn.Module):
    """Encodes texts; each token sees those before it."""

    cfg: ClipTextConfig

    @nn.compact
    def __call__(
        self, ids: Int[Array, "b l"], mask: Mask[Array, "b l"] | None = None
    ) -> Tensors:
        """Encodes texts.

        Args:
            ids: Token ids, each text with its end token.
            mask: True where there is a token; None is everywhere, which with padding
                after the end token gives the same `pooled`.

        Returns:
            `embed`, the `block_i` asked for, `tokens` after the last norm, and `pooled
            [b, d]`, the token at the end of the text.

        Raises:
            ValueError: If a text is too long.
        """
        cfg, (b, length) = self.cfg, ids.shape
        if length > cfg.max_positions:
            raise ValueError(f"{length} tokens, more than {cfg.max_positions}.")
        x = _embed(cfg, cfg.vocab_size, "token")(ids)
        x = x + _embed(cfg, cfg.max_positions, "position")(jnp.arange(length))
        out = {"embed": x}
        keys = None
        if mask is not None:
            keys = boolean_mask(mask, ids.shape)[:, None, None]
        x, blocks = _scan(ClipLayer(cfg, causal=True, name="layers"), x, keys, cfg)
        x = _norm(cfg, "final_norm")(x)
        last = ids if cfg.eos_id is None else ids == cfg.eos_id
        pooled = x[jnp.arange(b), jnp.argmax(last, axis=-1)]
        return out | blocks | {"tokens": x, "pooled": pooled}


class Clip(nn.Module):
    """Compares images with texts by the cosine of their projections."""

    cfg: ClipConfig

    @nn.compact
    def __call__(
        self,
        pixels: Float[Array, "b s s 3"],
        ids: Int[Array, "k l"],
        mask: Mask[Array, "k l"] | None = None,
    ) -> Tensors:
        """Encodes images and texts.

        Returns:
            `image [b, e]` and `text [k, e]`, unit vectors in float32 or wider; `logits
            [b, k]`, their cosines times `exp(logit_scale)`, which is not clamped here;
            each tower's tensors, as `vision_pooled` and `text_pooled`.
        """
        cfg = self.cfg
        seen = ClipVision(cfg.vision, name="vision")(pixels)
        read = ClipText(cfg.text, name="text")(ids, mask)

        def project(x: Array, tower: _TowerConfig, name: str) -> Array:
            layer = nn.Dense(
                cfg.projection_dim,
                use_bias=False,
                kernel_init=nn.initializers.normal(tower.dim**-0.5),
                dtype=tower.dtype,
                param_dtype=tower.param_dtype,
                name=name,
            )
            x = promote(layer(x))
            return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True))

        image = project(seen["pooled"], cfg.vision, "visual_projection")
        text = project(read["pooled"], cfg.text, "text_projection")
        scale = self.param(
            "logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ()
        )
        out = {"image": image, "text": text}
        out["logits"] = jnp.exp(scale) * image @ text.T
        out |= {f"vision_{name}": value for name, value in seen.items()}
        return out | {f"text_{name}": value for name, value in read.items()}


def _scan(
    layer: ClipLayer, x: Array, mask: Array | None, cfg: _TowerConfig
) -> tuple[Array, Tensors]:
    x, blocks, _ = scan_layers(
        layer, x, mask, depth=cfg.depth, layers_out=cfg.layers_out, remat=cfg.remat
    )
    return x, blocks


def _norm(cfg: _TowerConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=cfg.eps,
        use_fast_variance=False,  # Its cancellation shows at 1e-5.
        dtype=cfg.dtype,
        param_dtype=cfg.param_dtype,
        name=name,
    )


def _dense(cfg: _TowerConfig, dim: int, name: str) -> nn.Dense:
    return nn.Dense(
        dim,
        kernel_init=nn.initializers.normal(cfg.init_std),
        dtype=cfg.dtype,
        param_dtype=cfg.param_dtype,
        name=name,
    )


def _embed(cfg: _TowerConfig, num: int, name: str) -> nn.Embed:
    return nn.Embed(
        num,
        cfg.dim,
        embedding_init=nn.initializers.normal(cfg.init_std),
        dtype=cfg.dtype,
        param_dtype=cfg.param_dtype,
        name=name,
    )
