"""A decoder of text: LLaMA (and so Vicuna) and Qwen2, with a cache of keys and values.

Reference:
    Touvron et al. 2023, "Llama 2: Open Foundation and Fine-Tuned Chat Models", arXiv
    2307.09288; Yang et al. 2024, "Qwen2 Technical Report", arXiv 2407.10671.
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.checks import check_choice
from eegkd.models.kv_cache import Cache, append_keys, begin_cache, visible_keys
from eegkd.models.stack import Remat, block_numbers, scan_layers
from eegkd.ops.attention import IMPLEMENTATIONS, dot_product_attention
from eegkd.ops.masks import boolean_mask
from eegkd.ops.rotary import rotary_angles, rotate, token_positions
from eegkd.typing import Array, Bool, Float, Int, Mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of a decoder; the defaults are those of Vicuna-7B.

    Attributes:
        vocab_size: Number of token ids.
        dim: Width.
        depth: Layers.
        num_heads: Heads of queries.
        num_kv_heads: Heads of keys and values, which divide those of queries.
        head_dim: Width of a head.
        ffn_dim: Width of the gated feed-forward layer.
        eps: Epsilon of every RMSNorm.
        rope_theta: Base of the rotary wavelengths.
        qkv_bias: True if query, key and value have biases, as Qwen2's have.
        tied: True if logits are products with the embeddings, without `lm_head`.
        layers_out: Layers to return, as `block_i`; negative ones count from the end.
        remat: Policy of what a backward pass computes again.
        attention: The `implementation` of `dot_product_attention`.
        init_std: Spread of the initial weights and embeddings.
        dtype: Type of the computation; norms, rotations, softmax and logits are in
            float32 or wider.
        param_dtype: Type of the parameters.
    """

    vocab_size: int = 32000
    dim: int = 4096
    depth: int = 32
    num_heads: int = 32
    num_kv_heads: int = 32
    head_dim: int = 128
    ffn_dim: int = 11008
    eps: float = 1e-5
    rope_theta: float = 1e4
    qkv_bias: bool = False
    tied: bool = False
    layers_out: tuple[int, ...] = ()
    remat: Remat = "none"
    attention: str | None = None
    init_std: float = 0.02
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Checks heads, layers and choices."""
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is no multiple of "
                f"num_kv_heads={self.num_kv_heads}."
            )
        block_numbers(self.layers_out, self.depth)
        check_choice("remat", self.remat, get_args(Remat))
        check_choice("attention", self.attention, (None, *IMPLEMENTATIONS))


_QWEN2 = DecoderConfig(
    vocab_size=151936,
    dim=1536,
    depth=28,
    num_heads=12,
    num_kv_heads=2,
    ffn_dim=8960,
    eps=1e-6,
    rope_theta=1e6,
    qkv_bias=True,
    tied=True,
)

PRESETS: dict[str, DecoderConfig] = {
    "vicuna-7b": DecoderConfig(),
    "vicuna-13b": DecoderConfig(
        dim=5120, depth=40, num_heads=40, num_kv_heads=40, ffn_dim=13824
    ),
    "qwen2-0.5b": dataclasses.replace(
        _QWEN2, dim=896, depth=24, num_heads=14, head_dim=64, ffn_dim=4864
    ),
    "qwen2-1.5b": _QWEN2,
}
"""Published sizes, by name."""


class DecoderLayer(nn.Module):
    """Attention and a gated feed-forward layer, each after its norm.

    Attributes:
        cfg: Sizes.
        causal: True if a token sees itself and earlier ones only; else the mask
            decides.
        returns_keys: True if the keys and values of these tokens are wanted.
    """

    cfg: DecoderConfig
    causal: bool
    returns_keys: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        cached: tuple[Float[Array, "b m g e"], Float[Array, "b m g e"]] | None,
        angles: tuple[Float[Array, "b l r"], Float[Array, "b l r"]],
        mask: Bool[Array, "b 1 #l n"] | None,
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """Returns tokens, and their keys and values."""
        cfg, (b, length, _) = self.cfg, x.shape
        types: dict[str, Any] = {"dtype": cfg.dtype, "param_dtype": cfg.param_dtype}
        norm = functools.partial(nn.RMSNorm, epsilon=cfg.eps, **types)
        init = nn.initializers.normal(cfg.init_std)

        def dense(name: str, features: int, bias: bool = False) -> nn.Dense:
            return nn.Dense(
                features, use_bias=bias, kernel_init=init, name=name, **types
            )

        def project(name: str, heads: int, y: Array) -> Array:
            y = dense(name, heads * cfg.head_dim, cfg.qkv_bias)(y)
            return y.reshape(b, length, heads, cfg.head_dim)

        y = norm(name="input_norm")(x)
        q = rotate(project("query", cfg.num_heads, y), *angles)
        k = rotate(project("key", cfg.num_kv_heads, y), *angles)
        v = project("value", cfg.num_kv_heads, y)
        fresh = (k, v) if self.returns_keys else None
        if cached is not None:
            # A copy that the slice of a scan needs anyway; the caller writes the few
            # new ones, so that no layer writes all of its cache back.
            k, v = (
                jnp.concatenate([old, new], axis=1)
                for old, new in zip(cached, (k, v), strict=True)
            )
        y = dot_product_attention(
            q, k, v, mask=mask, causal=self.causal, implementation=cfg.attention
        )
        x = x + dense("out", cfg.dim)(y.reshape(b, length, -1))
        y = norm(name="post_norm")(x)
        y = nn.silu(dense("gate", cfg.ffn_dim)(y)) * dense("up", cfg.ffn_dim)(y)
        return x + dense("down", cfg.dim)(y), fresh


class Decoder(nn.Module):
    """Predicts the next token; equal layers are scanned."""

    cfg: DecoderConfig

    def setup(self) -> None:
        """Makes the parts around the layers."""
        cfg = self.cfg
        types: dict[str, Any] = {"dtype": cfg.dtype, "param_dtype": cfg.param_dtype}
        init = nn.initializers.normal(cfg.init_std)
        self.embed: nn.Embed = nn.Embed(
            cfg.vocab_size, cfg.dim, embedding_init=init, **types
        )
        self.norm: nn.RMSNorm = nn.RMSNorm(epsilon=cfg.eps, **types)
        if not cfg.tied:
            self.lm_head: nn.Dense = nn.Dense(
                cfg.vocab_size,
                use_bias=False,
                kernel_init=init,
                dot_general=_wide_dot,
                **types,
            )

    def embed_tokens(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        """Looks up token embeddings; NaN for an id that is none of the vocabulary."""
        # A lookup counts negative ones from the end.
        return self.embed(jnp.where(ids < 0, self.cfg.vocab_size, ids))

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "b l"] | None = None,
        mask: Mask[Array, "b l"] | None = None,
        *,
        embeds: Float[Array, "b l d"] | None = None,
        positions: Int[Array, "b l"] | None = None,
        visible: Mask[Array, "#b l l"] | None = None,
        cache: Cache | None = None,
        room: int | None = None,
        logits: Literal["all", "last", "none"] = "all",
    ) -> dict[str, Any]:
        """Reads tokens.

        Args:
            ids: Token ids, or else `embeds`.
            mask: True where there is a token, padding being on any side; None is
                everywhere.
            embeds: Embeddings of tokens, such as text and images together.
            positions: Positions; None counts real tokens, those in the cache first.
            visible: True where one of these tokens sees another; None is itself and
                earlier ones. All see what is in the cache.
            cache: Cache of earlier tokens; it needs as many free slots as tokens.
            room: Slots of a new cache, which these tokens begin.
            logits: Tokens that get logits: "last" is each row's last real one; NaN
                where a row has none.

        Returns:
            `embed`; `block_i` of `layers_out`; `tokens` after the last norm; `logits
            [b, l | 1, v]` if wanted; `cache`, if one was given or begun.

        Raises:
            ValueError: If arguments exclude each other, or tokens exceed the slots.
        """
        cfg = self.cfg
        if logits not in ("all", "last", "none"):
            raise ValueError(f"logits is all, last or none; got {logits!r}.")
        x, filled = self._embed(ids, embeds, mask)
        if cache is not None and room is not None:
            raise ValueError("A cache that is given has its room already.")
        if positions is None:
            positions = token_positions(filled)
            if cache is not None:
                positions += cache.mask.sum(axis=1, keepdims=True, dtype=jnp.int32)
        causal = visible is None and cache is None
        if not causal:
            keep = visible_keys(filled, visible, cache)[:, None]
        else:
            keep = None if mask is None else filled[:, None, None]
        angles = rotary_angles(positions, dim=cfg.head_dim, theta=cfg.rope_theta)
        returns_keys = cache is not None or room is not None
        out: dict[str, Any] = {"embed": x}
        x, blocks, keys = scan_layers(
            DecoderLayer(cfg, causal, returns_keys, name="layers"),
            x,
            angles,
            keep,
            depth=cfg.depth,
            scanned=None if cache is None else (cache.key, cache.value),
            layers_out=cfg.layers_out,
            remat=cfg.remat,
        )
        out |= blocks
        out["tokens"] = x = self.norm(x)
        if self.is_initializing():
            # Every part exists, whatever the model is first called with.
            self.embed_tokens(jnp.zeros((1, 1), jnp.int32))
            self._predict(x)
        if logits != "none":
            wanted = x if logits == "all" else _last_token(x, filled)
            out["logits"] = self._predict(wanted)
        if cache is not None:
            out["cache"] = append_keys(cache, keys, filled)
        elif room is not None:
            out["cache"] = begin_cache(keys, filled, room)
        return out

    def _embed(
        self, ids: Array | None, embeds: Array | None, mask: Array | None
    ) -> tuple[Array, Array]:
        """Returns the embeddings of what is read, and where there are tokens."""
        prompt = embeds if ids is None else ids
        if prompt is None or (ids is not None and embeds is not None):
            raise ValueError("Need either ids or embeds.")
        filled = boolean_mask(mask, prompt.shape[:2])
        if ids is None:
            return prompt.astype(self.cfg.dtype), filled
        # Padding may have any id: a NaN there would reach all that is averaged.
        return self.embed_tokens(jnp.where(filled, ids, jnp.maximum(ids, 0))), filled

    def _predict(self, x: Array) -> Array:
        if self.cfg.tied:
            table = self.embed.embedding.astype(x.dtype)
            return _wide_dot(x, table, (((2,), (1,)), ((), ())))
        return self.lm_head(x)


def _wide_dot(x: Array, y: Array, dims: Any, **options: Any) -> Array:
    """Multiplies into float32 or wider: a softmax over the vocabulary needs it."""
    options["preferred_element_type"] = jnp.promote_types(x.dtype, jnp.float32)
    return jax.lax.dot_general(x, y, dims, **options)


def _last_token(x: Array, filled: Array) -> Array:
    """Returns the last real token of each row, `[b, 1, d]`, or NaN."""
    index = filled.shape[1] - 1 - jnp.argmax(filled[:, ::-1], axis=1)
    last = jnp.take_along_axis(x, index[:, None, None], axis=1)
    return jnp.where(filled.any(axis=1)[:, None, None], last, jnp.nan)
