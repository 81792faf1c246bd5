"""Models known by name: how each is built, fed and trained, by shapes alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.data.images.anyres import AnyresConfig, count_tiles, count_tokens
from eegkd.errors import InputError, suggest
from eegkd.losses import Term
from eegkd.models import PUBLISHED, LoraConfig, find_linears
from eegkd.models.clip import ClipVisionConfig
from eegkd.models.decoder import DecoderConfig
from eegkd.models.llava import LlavaConfig
from eegkd.systems import Stage, System, keep_all
from eegkd.systems.language import language_system, run_language, split_variables
from eegkd.typing import Batch, Tensors, Variables

NAMES = tuple(name for model in PUBLISHED.values() for name in model.plan)
Shapes = dict[str, jax.ShapeDtypeStruct]


class Sizes(NamedTuple):
    """What a batch holds.

    Attributes:
        batch: Examples.
        length: Positions of text and visual tokens together.
        image: Height and width in pixels of each example's one image.
    """

    batch: int = 8
    length: int = 2048
    image: tuple[int, int] = (336, 336)


class Known(NamedTuple):
    """A model of a name.

    Attributes:
        name: As on the command line.
        config: Its sizes.
        module: The model.
        group: Of its parameters, where it has no groups of its own.
        layers: Path of its linear layers that adapters are for, as a pattern.
        trained: Groups of its own weights that are trained beside adapters, and
            without them; None is all.
        decoder: Sizes of its decoder; None if it has none.
        visual_tokens: Of one image, in a decoder's sequence.
        tiles: Of one image.
    """

    name: str
    config: Any
    module: Any
    group: str
    layers: str
    trained: tuple[tuple[str, ...], tuple[str, ...] | None]
    decoder: DecoderConfig | None
    visual_tokens: int = 0
    tiles: int = 1

    def tokens(self, length: int) -> int:
        """Counts the tokens that attend to each other, of `length` positions."""
        return length if self.decoder is not None else 1 + self.config.num_patches


def get_model(
    name: str,
    *,
    sizes: Sizes,
    remat: str = "full",
    dtype: str = "bfloat16",
    attention: str | None = None,
    depth: int = 0,
) -> Known:
    """Returns a model by its name.

    Args:
        name: One of `NAMES`.
        sizes: Of the batch: they say how many tokens an image has.
        remat: What the backward pass computes again.
        dtype: Of the computation and of weights that are not trained.
        attention: As `DecoderConfig.attention`.
        depth: Layers of the decoder or tower in place of the published number, to see
            what one more costs; 0 keeps that.

    Raises:
        InputError: If there is none of that name, or the sequence is too short for the
            image.
    """
    plans = {k: plan for model in PUBLISHED.values() for k, plan in model.plan.items()}
    if name not in plans:
        raise InputError(
            f"There is no model {name!r}: choose {', '.join(plans)}."
            f"{suggest(name, plans)}"
        )
    plan = plans[name]
    types = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
    config = _retype(plan.config, types, remat, attention, depth)
    tokens, tiles = 0, 1
    if isinstance(config, LlavaConfig):
        tokens, tiles = _of_image(config, sizes.image)
        if tokens >= sizes.length:
            raise InputError(
                f"An image of {sizes.image[0]} x {sizes.image[1]} pixels has {tokens} "
                f"visual tokens for {name}: --length is to be longer; got "
                f"{sizes.length}."
            )
    return Known(
        name=name,
        config=config,
        module=plan.module(config),
        group=plan.group,
        layers=plan.layers,
        trained=(plan.own, (*plan.own, *plan.tuned) if plan.tuned else None),
        decoder=_decoder(config),
        visual_tokens=tokens,
        tiles=tiles,
    )


def _retype(
    config: Any,
    types: Mapping[str, Any],
    remat: str,
    attention: str | None,
    depth: int,
) -> Any:
    """Returns the sizes with other types; a tower under a decoder is not trained."""
    if isinstance(config, LlavaConfig):
        return dataclasses.replace(
            config,
            # Nothing goes back through the tower, and nothing is kept.
            vision=dataclasses.replace(config.vision, **types),
            language=_retype(config.language, types, remat, attention, depth),
        )
    fields = {**types, "remat": remat} | ({"depth": depth} if depth else {})
    if isinstance(config, DecoderConfig):
        fields["attention"] = attention
    return dataclasses.replace(config, **fields)


def _decoder(config: Any) -> DecoderConfig | None:
    inner = config.language if isinstance(config, LlavaConfig) else config
    return inner if isinstance(inner, DecoderConfig) else None


def _of_image(config: LlavaConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Returns the visual tokens and the tiles of an image."""
    vision = config.vision
    if not config.grids:
        return vision.num_patches, 1
    anyres = AnyresConfig(
        tile=vision.image_size, patch=vision.patch_size, grids=config.grids
    )
    return count_tokens(size, anyres), count_tiles(size, anyres)


def batch_shapes(known: Known, sizes: Sizes) -> Shapes:
    """Returns the shapes of a batch to train on."""
    shape = jax.ShapeDtypeStruct
    b, length = sizes.batch, sizes.length
    if known.decoder is None:
        cfg: ClipVisionConfig = known.config
        tokens = (b, 1 + cfg.num_patches, cfg.dim)
        pixels = (b, cfg.image_size, cfg.image_size, 3)
        return {
            "pixels": shape(pixels, jnp.float32),
            "target": shape(tokens, jnp.float32),
        }
    found = {
        name: shape((b, length), dtype)
        for name, dtype in (
            ("ids", jnp.int32),
            ("mask", jnp.bool_),
            ("labels", jnp.int32),
        )
    }
    if known.visual_tokens:
        side = known.config.vision.image_size
        pixels = (b, known.tiles, side, side, 3)
        found["pixels"] = shape(pixels, jnp.float32)
        found["visual_at"] = shape((b, length), jnp.int32)
        found["visual_index"] = shape((b, known.visual_tokens), jnp.int32)
    return found


def model_system(known: Known, lora: LoraConfig | None, sizes: Sizes) -> System:
    """Makes the system that trains a model: next tokens, or a tower's features."""
    linears: tuple[str, ...] = ()
    if lora is not None:
        first = "ids" if known.decoder else "pixels"
        linears = find_linears(known.module, batch_shapes(known, sizes)[first])
    trained = known.trained[0 if lora else 1]
    if known.decoder is not None:
        return language_system(
            known.module, lora=lora, linears=linears, trained=trained
        )
    return tower_system(known.module, lora=lora, linears=linears)


def tower_system(
    module: Any, *, lora: LoraConfig | None, linears: tuple[str, ...]
) -> System:
    """Makes a system that brings a tower's tokens near given ones."""

    def init(key: Any, batch: Batch, upstream: Mapping[str, Variables]) -> Variables:
        del upstream
        own, other = jax.random.split(key)
        weights = module.init(own, batch["pixels"][:1])["params"]
        return split_variables(other, weights, lora, linears)

    def run(variables: Variables, batch: Batch) -> Tensors:
        return run_language(module, variables, {"pixels": batch["pixels"]}, lora=lora)

    def forward(
        variables: Variables, batch: Batch, upstream: Any, *, train: bool, key: Any
    ) -> tuple[Tensors, Any]:
        del upstream, train, key
        return run(variables, batch), variables.state

    def distance(tokens: Any, target: Any) -> Any:
        return jnp.mean((tokens.astype(target.dtype) - target) ** 2, axis=(1, 2))

    term = Term("tokens", distance, ("student.tokens", "batch.target"))
    stage = Stage("student", init, forward, (term,))

    def predict(name: str, variables: Variables, batch: Batch) -> Any:
        del name
        return run(variables, batch)["pooled"]

    return System("tower", ("pixels",), keep_all, (stage,), predict)
