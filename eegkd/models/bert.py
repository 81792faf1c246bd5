"""BERT, with deep prompts as an input so that its own weights can stay frozen.

Reference:
    Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers".
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.checks import check_depth
from eegkd.models.layers import Dropout, gelu
from eegkd.models.prompts import append_tokens
from eegkd.ops.masks import boolean_mask
from eegkd.typing import Array, Bool, Float, Int, Mask, Tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Sizes of a BERT; the defaults are those of bert-base-uncased.

    Attributes:
        vocab_size: Number of token ids.
        dim: Width.
        depth: Layers.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layer.
        max_positions: Longest text, in tokens.
        num_types: Token types; a single text has type 0.
        eps: Epsilon of every LayerNorm.
        dropout: Rate on embeddings, attention weights and residual branches.
        init_std: Spread of the initial weights and embeddings.
        pooler: True if `pooled` (Dense and tanh of [CLS]) exists.
    """

    vocab_size: int = 30522
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    ffn_dim: int = 3072
    max_positions: int = 512
    num_types: int = 2
    eps: float = 1e-12
    dropout: float = 0.1
    init_std: float = 0.02
    pooler: bool = True

    def __post_init__(self) -> None:
        """Checks the number of layers, and that heads divide the width."""
        check_depth(self.depth)
        if self.dim % self.num_heads:
            raise ValueError(
                f"dim={self.dim} is no multiple of num_heads={self.num_heads}."
            )


class Embeddings(nn.Module):
    """Word, position and type embeddings, summed and normalised."""

    cfg: BertConfig

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], *, train: bool) -> Float[Array, "b l d"]:
        """Looks up ids and adds positions and type 0."""
        cfg, length = self.cfg, ids.shape[1]
        init = nn.initializers.normal(cfg.init_std)
        tables = (
            ("word", cfg.vocab_size, ids),
            ("position", cfg.max_positions, jnp.arange(length)[None]),
            ("type", cfg.num_types, jnp.zeros((1, length), jnp.int32)),
        )
        x = sum(
            nn.Embed(size, cfg.dim, embedding_init=init, name=name)(index)
            for name, size, index in tables
        )
        x = nn.LayerNorm(epsilon=cfg.eps, name="norm")(x)
        return Dropout(cfg.dropout)(x, train=train)


class BertLayer(nn.Module):
    """Post-norm attention and feed-forward; a scan body over the layers."""

    cfg: BertConfig
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        mask: Bool[Array, "b 1 1 m"],
        prompts: Float[Array, "p d"] | None,
    ) -> tuple[Array, Array]:
        """Returns the tokens twice: as carry and as output of the scan."""
        cfg, train = self.cfg, self.train
        init = nn.initializers.normal(cfg.init_std)
        heads = (cfg.num_heads, cfg.dim // cfg.num_heads)
        drop = Dropout(cfg.dropout)

        def dense(dim: int, name: str) -> nn.Dense:
            return nn.Dense(dim, kernel_init=init, name=name)

        def project(name: str, with_prompts: bool) -> Array:
            layer = dense(cfg.dim, name)
            # A prompt has no output of its own: the next layer replaces it.
            side = layer(prompts)[None] if with_prompts else None
            return append_tokens(layer(x), side).reshape(x.shape[0], -1, *heads)

        has_prompts = prompts is not None
        q, k, v = (
            project("query", False),
            *(project(name, has_prompts) for name in ("key", "value")),
        )
        scores = jnp.einsum("blhe,bmhe->bhlm", q, k) / heads[1] ** 0.5
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        scores = jnp.where(mask, scores.astype(wide), jnp.finfo(wide).min)
        weights = drop(jax.nn.softmax(scores).astype(v.dtype), train=train)
        y = jnp.einsum("bhlm,bmhe->blhe", weights, v).reshape(x.shape)
        y = drop(dense(cfg.dim, "attention_out")(y), train=train)
        x = nn.LayerNorm(epsilon=cfg.eps, name="attention_norm")(x + y)
        y = dense(cfg.dim, "down")(gelu(dense(cfg.ffn_dim, "up")(x)))
        x = nn.LayerNorm(epsilon=cfg.eps, name="norm")(x + drop(y, train=train))
        return x, x


class Bert(nn.Module):
    """Encodes token ids; equal layers are scanned, so compile time is flat in depth."""

    cfg: BertConfig

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "b l"],
        mask: Mask[Array, "b l"] | None = None,
        *,
        prompts: Float[Array, "depth p d"] | None = None,
        train: bool = False,
    ) -> Tensors:
        """Encodes texts.

        Args:
            ids: Token ids, [CLS] first.
            mask: True where there is a token; None is everywhere.
            prompts: Deep prompts: layer `i` sees `prompts[i]` after [CLS], in place
                of the outputs that the prompts of the layer below had. They have no
                position, so where they stand makes no difference.
            train: True to apply dropout.

        Returns:
            `tokens` and `block_i` (of `ids` alone), `embed`, `cls`, and with a pooler
            `pooled`.

        Raises:
            ValueError: If a text is too long or the prompts do not fit.
        """
        cfg, (b, length) = self.cfg, ids.shape
        if length > cfg.max_positions:
            raise ValueError(f"{length} tokens, more than {cfg.max_positions}.")
        mask = boolean_mask(mask, (b, length))
        if prompts is not None:
            num = prompts.shape[1]
            if prompts.shape != (cfg.depth, num, cfg.dim):
                raise ValueError(
                    f"Need prompts [{cfg.depth}, p, {cfg.dim}]; got {prompts.shape}."
                )
            mask = jnp.concatenate([mask, jnp.ones((b, num), bool)], axis=1)
        x = Embeddings(cfg, name="embeddings")(ids, train=train)
        layers = nn.scan(
            BertLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
            length=cfg.depth,
        )(cfg, train, name="layers")
        out = {"embed": x}
        x, blocks = layers(x, mask[:, None, None, :], prompts)
        out |= {f"block_{i}": blocks[i] for i in range(cfg.depth)}
        out |= {"tokens": x, "cls": x[:, 0]}
        if cfg.pooler:
            pooler = nn.Dense(cfg.dim, name="pooler")
            out["pooled"] = jnp.tanh(pooler(x[:, 0]))
        return out
