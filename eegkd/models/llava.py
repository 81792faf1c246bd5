"""LLaVA 1.5 and 1.6: a vision tower, a projector and a decoder of text.

The part that depends on images' sizes and texts' lengths is done before, in NumPy
(`eegkd.data.images.anyres`, `eegkd.data.language.packing`), and arrives as indices of
fixed length; the model gathers twice: patches of tiles into the visual tokens of a row,
and those into the sequence of text. A caller may give its own visual tokens instead.

References:
    Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning", arXiv
    2310.03744; Liu et al. 2024, "LLaVA-NeXT".
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.checks import check_visual
from eegkd.models.clip import PRESETS as CLIPS
from eegkd.models.clip import ClipVision, ClipVisionConfig
from eegkd.models.decoder import PRESETS as DECODERS
from eegkd.models.decoder import Decoder, DecoderConfig
from eegkd.models.layers import gelu
from eegkd.models.stack import block_numbers
from eegkd.ops.masks import boolean_mask, keep_rows
from eegkd.typing import Array, Float, Int, Mask, Tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlavaConfig:
    """Parts of a LLaVA.

    Attributes:
        vision: The vision tower.
        language: The decoder.
        select_layer: Layer of the tower whose patches are the visual tokens.
        grids: Sizes (height, width) in pixels that LLaVA-1.6 cuts images into, for
            `eegkd.data.images.anyres.AnyresConfig`; such a model has a newline vector.
            () is LLaVA-1.5.
    """

    vision: ClipVisionConfig
    language: DecoderConfig
    select_layer: int = -2
    grids: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        """Checks the layer."""
        block_numbers((self.select_layer,), self.vision.depth)

    @property
    def block(self) -> str:
        """Name of the selected layer, as `block_22`."""
        (number,) = block_numbers((self.select_layer,), self.vision.depth)
        return f"block_{number}"


_VISION = CLIPS["clip-vit-large-patch14-336"].vision
_GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))

PRESETS: dict[str, LlavaConfig] = {
    "llava-1.5-7b": LlavaConfig(vision=_VISION, language=DECODERS["vicuna-7b"]),
    "llava-1.5-13b": LlavaConfig(vision=_VISION, language=DECODERS["vicuna-13b"]),
    "llava-1.6-7b": LlavaConfig(
        vision=_VISION, language=DECODERS["vicuna-7b"], grids=_GRIDS
    ),
}
"""Published sizes, by name."""


class VisualProjector(nn.Module):
    """Maps visual features to the decoder's width: Dense, GELU, Dense (mlp2x_gelu).

    Attributes:
        dim: Width of the decoder.
        init_std: Spread of the initial weights.
        dtype: Type of the computation.
        param_dtype: Type of the parameters.
    """

    dim: int
    init_std: float = 0.02
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
        """Projects each vector by itself."""

        def dense(name: str) -> nn.Dense:
            return nn.Dense(
                self.dim,
                kernel_init=nn.initializers.normal(self.init_std),
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )

        return dense("linear_2")(gelu(dense("linear_1")(x)))


def arrange_patches(
    patches: Float[Array, "b p n d"],
    index: Int[Array, "b v"],
    mask: Mask[Array, "b v"] | None = None,
    newline: Float[Array, " d"] | None = None,
) -> Float[Array, "b v d"]:
    """Orders patches of tiles as a row's visual tokens, by one gather.

    Args:
        patches: Projected patches of all tiles of a row; padded tiles are not read.
        index: The number `tile * n + patch`, or below 0 for the newline vector, as
            `eegkd.data.images.anyres.row_index` makes it.
        mask: True where it holds a token; None is everywhere; the rest is zero.
        newline: Newline vector; None where the index has none.

    Returns:
        Visual tokens; an index past the last patch gives NaN, as of embeddings.
    """
    b, p, n, d = patches.shape
    mask = boolean_mask(mask, index.shape, "visual_mask")
    tokens = _take(patches.reshape(b, p * n, d), index)
    if newline is not None:
        tokens = jnp.where((index < 0)[..., None], newline.astype(tokens.dtype), tokens)
    return jnp.where(mask[..., None], tokens, jnp.zeros_like(tokens))


def insert_visual(
    text: Float[Array, "b l d"],
    visual: Float[Array, "b v d"],
    visual_at: Int[Array, "b l"],
    mask: Mask[Array, "b v"] | None = None,
) -> Float[Array, "b l d"]:
    """Inserts visual tokens into a sequence of text embeddings, by one gather.

    Args:
        text: Embeddings of ids; those at visual positions are not used.
        visual: Visual tokens of each row, whatever they were made from.
        visual_at: Visual token at each position, below 0 for none, as
            `eegkd.data.language.packing.pack_row` makes it.
        mask: True for visual tokens that exist; None is all.

    Returns:
        The sequence; NaN all over a row that has another number of places than of
        visual tokens, or a place for one that is not there.
    """
    there = boolean_mask(mask, visual.shape[:2], "visual_mask")
    is_place = visual_at >= 0
    tokens = _take(visual.astype(text.dtype), visual_at)
    fits = is_place.sum(axis=1) == there.sum(axis=1)
    fits &= (_take(there, visual_at) | ~is_place).all(axis=1)
    joined = jnp.where(is_place[..., None], tokens, text)
    return jnp.where(fits[:, None, None], joined, jnp.nan)


class Llava(nn.Module):
    """Reads images and text, and predicts the next token of the text."""

    cfg: LlavaConfig

    def setup(self) -> None:
        """Makes the parts."""
        cfg, text = self.cfg, self.cfg.language
        layers = (*cfg.vision.layers_out, cfg.select_layer)
        self.vision: ClipVision = ClipVision(
            dataclasses.replace(cfg.vision, layers_out=layers)
        )
        self.projector: VisualProjector = VisualProjector(
            text.dim, text.init_std, text.dtype, text.param_dtype
        )
        self.language: Decoder = Decoder(text)
        if cfg.grids:
            init = nn.initializers.normal(text.dim**-0.5)
            shape = (text.dim,)
            self.newline: Array = self.param("newline", init, shape, text.param_dtype)

    def see(self, pixels: Float[Array, "b p s s 3"]) -> Tensors:
        """Encodes and projects the tiles, or images, of each row.

        Returns:
            `patches [b, p, n, d]`, projected; the tower's tensors as `vision_block_22
            [b, p, 1 + n, e]`, before the projection, class token first.
        """
        b, p = pixels.shape[:2]
        seen = self.vision(pixels.reshape(b * p, *pixels.shape[2:]))
        out = {
            f"vision_{name}": value.reshape(b, p, *value.shape[1:])
            for name, value in seen.items()
        }
        patches = out[f"vision_{self.cfg.block}"][:, :, 1:]
        return out | {"patches": self.project(patches)}

    def project(self, features: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
        """Projects features of the tower's width, its own or another model's."""
        return self.projector(features)

    def embed(
        self,
        ids: Int[Array, "b l"],
        *,
        visual_at: Int[Array, "b l"] | None = None,
        pixels: Float[Array, "b p s s 3"] | None = None,
        visual_index: Int[Array, "b v"] | None = None,
        visual: Float[Array, "b v d"] | None = None,
        visual_mask: Mask[Array, "b v"] | None = None,
    ) -> Tensors:
        """Embeds a packed batch, images and text together, for the decoder to read.

        Args:
            ids: Token ids, any of the vocabulary at visual positions.
            visual_at: Visual token at each position; needed with images.
            pixels: Tiles or images of each row, as `stack_tiles` of
                `eegkd.data.images.anyres` makes them.
            visual_index: Order of their patches and newlines; needed by LLaVA-1.6, in
                1.5 None takes all patches in their order.
            visual: Visual tokens of the decoder's width, in place of pixels.
            visual_mask: True for visual tokens that exist; None is all.

        Each visual token has one place in the text: other numbers are refused, or give
        NaN in all of their row inside jit, where they are not known.

        Returns:
            `embeds [b, l, d]`; `visual [b, v, d]` and `visual_mask [b, v]`, the visual
            tokens as the decoder gets them; of pixels also what `see` returns but
            `patches`.

        Raises:
            InputError: If places and visual tokens do not fit each other.
            ValueError: If arguments exclude each other or one is missing.
        """
        if pixels is not None and visual is not None:
            raise ValueError("Give either pixels or visual tokens.")
        out: Tensors = {}
        if pixels is not None:
            out = self.see(pixels)
            visual = self._arrange(out.pop("patches"), visual_index, visual_mask)
        if (visual is None) != (visual_at is None):
            raise ValueError(
                "Visual tokens and visual_at are needed together: give pixels or "
                "visual beside it, or leave it out where no row has an image."
            )
        embeds = self.language.embed_tokens(ids)
        if visual is not None and visual_at is not None:
            visual_mask = boolean_mask(visual_mask, visual.shape[:2], "visual_mask")
            check_visual(visual_at, visual_mask)
            embeds = insert_visual(embeds, visual, visual_at, visual_mask)
            out |= {"visual": visual, "visual_mask": visual_mask}
        return out | {"embeds": embeds}

    def __call__(
        self,
        ids: Int[Array, "b l"],
        mask: Mask[Array, "b l"] | None = None,
        *,
        visual_at: Int[Array, "b l"] | None = None,
        pixels: Float[Array, "b p s s 3"] | None = None,
        visual_index: Int[Array, "b v"] | None = None,
        visual: Float[Array, "b v d"] | None = None,
        visual_mask: Mask[Array, "b v"] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Reads a packed batch.

        `mask` is True where there is a token; None is everywhere. `options` are those
        of the `Decoder`: `positions`, `visible`, `cache`, `room`, `logits`. The other
        arguments are those of `embed`.

        Returns:
            Tensors of the decoder (`embed` being of the whole sequence), and those
            that `embed` returns.
        """
        if self.is_initializing() and pixels is None:
            # Every part exists, whatever the model is first called with.
            side = self.cfg.vision.image_size
            self.see(jnp.zeros((1, 1, side, side, 3)))
        out: dict[str, Any] = self.embed(
            ids,
            visual_at=visual_at,
            pixels=pixels,
            visual_index=visual_index,
            visual=visual,
            visual_mask=visual_mask,
        )
        embeds = out.pop("embeds")
        return out | self.language(embeds=embeds, mask=mask, **options)

    def _arrange(
        self, patches: Array, index: Array | None, mask: Array | None
    ) -> Float[Array, "b v d"]:
        if index is not None:
            newline = self.newline if self.cfg.grids else None
            return arrange_patches(patches, index, mask, newline)
        if self.cfg.grids:
            raise ValueError("LLaVA-1.6 needs visual_index beside pixels.")
        b, p, n, d = patches.shape
        flat = patches.reshape(b, p * n, d)
        if mask is None:
            return flat
        return keep_rows(flat, boolean_mask(mask, flat.shape[:2], "visual_mask"))


def _take(table: Array, index: Int[Array, "b v"]) -> Array:
    """Takes rows of each example's own table, so that a batch may be spread.

    Past its end come NaN, or False of booleans.
    """
    fill = False if table.dtype == bool else None
    take = lambda rows, i: rows.at[jnp.maximum(i, 0)].get(mode="fill", fill_value=fill)
    return jax.vmap(take)(table, index)
