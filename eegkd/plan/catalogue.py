"""Published models to plan: sizes, batches and training, by shapes alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Adapters of the linear layers.

    Attributes:
        rank: Inner width; 0 has none, and trains the model's own weights.
        alpha: Numerator of the output's scale, alpha / rank.
        targets: Paths of linear layers, * for anything; () is all those of the
            decoder's layers, or the tower's.
    """

    rank: int = 0
    alpha: float = 256.0
    targets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """Training of a model, and its batch.

    Attributes:
        lora: Adapters; with them the model's own weights are frozen.
        batch_size: Examples of all devices together.
        length: Positions of an example, of text and images together.
        image: Height and width of an example's image, where the model reads one.
        devices: Devices that share the batch.
        model_axis: Devices that share examples, and parameters (runner mesh).
        fully_sharded: Cut parameters and optimiser over the data axis too.
        remat: Values that a layer's backward pass recomputes: none, all but its input
            (full), or all but products with weights (dots).
        dtype: Type of the computation and of weights that are not trained.
        attention: Scores of all pairs of tokens in memory (plain), or a few at a time
            in a fused kernel of the accelerator.
        chip: Adds whether it fits: A100, H100, H200, v5e, v5p or v6e.
    """

    lora: LoraOptions = LoraOptions()
    batch_size: int = 8
    length: int = 2048
    image: tuple[int, int] = (336, 336)
    devices: int = 1
    model_axis: int = 1
    fully_sharded: bool = False
    remat: Literal["none", "full", "dots"] = "full"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    attention: Literal["fused", "plain"] = "fused"
    chip: str = ""

    @property
    def data_axis(self) -> int:
        """Groups of devices among which the examples are divided."""
        return self.devices // self.model_axis


def check_options(options: ModelPlan) -> None:
    """Checks the ranges.

    Raises:
        InputError: If a number is below its least, or does not divide another.
    """
    least = {
        "batch_size": options.batch_size,
        "length": options.length,
        "devices": options.devices,
        "model_axis": options.model_axis,
        "lora.rank": options.lora.rank + 1,
    }
    for name, number in least.items():
        if number < 1:
            raise InputError(f"--{name} is at least {int(name != 'lora.rank')}.")
    if options.devices % options.model_axis:
        raise InputError(
            f"--model_axis {options.model_axis} has to divide --devices "
            f"{options.devices}."
        )
    data = options.data_axis
    if options.batch_size % data:
        raise InputError(
            f"--batch_size {options.batch_size} cannot be split over {data} devices "
            "(--devices over --model_axis): take a multiple of them."
        )


class Catalogued(NamedTuple):
    """A published model, to be planned.

    Attributes:
        name: Name on the command line.
        config: Sizes.
        module: The model.
        group: Name of its parameters, where it has no groups of its own.
        layers: Path of its linear layers that adapters are for, as a pattern.
        trained: Groups of its own weights that are trained besides adapters, and
            without them; None is all.
        decoder: Sizes of its decoder; None if it has none.
        visual_tokens: Visual tokens of one image in a decoder's sequence.
        tiles: Tiles of one image.
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
    name: str, options: ModelPlan, *, attention: str | None = None, depth: int = 0
) -> Catalogued:
    """Returns a model by its name.

    Args:
        name: One of `NAMES`.
        options: Options of the training: types, recomputation, and sizes of the batch,
            which decide the number of an image's tokens.
        attention: Kind of attention, as `DecoderConfig.attention`.
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
    types = {"dtype": jnp.dtype(options.dtype)}
    types["param_dtype"] = types["dtype"]
    config = _retype(plan.config, types, options.remat, attention, depth)
    tokens, tiles = 0, 1
    if isinstance(config, LlavaConfig):
        tokens, tiles = _of_image(config, options.image)
        if tokens >= options.length:
            height, width = options.image
            raise InputError(
                f"An image of {height} x {width} pixels has {tokens} visual tokens for "
                f"{name}: --length is to be longer; got {options.length}."
            )
    return Catalogued(
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
    config: Any, types: Mapping[str, Any], remat: str, attention: str | None, depth: int
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


def model_batch(model: Catalogued, options: ModelPlan) -> Shapes:
    """Returns the shapes of a batch to train on."""
    shape = jax.ShapeDtypeStruct
    b, length = options.batch_size, options.length
    if model.decoder is None:
        cfg: ClipVisionConfig = model.config
        tokens = (b, 1 + cfg.num_patches, cfg.dim)
        pixels = (b, cfg.image_size, cfg.image_size, 3)
        return {
            "pixels": shape(pixels, jnp.float32),
            "target": shape(tokens, jnp.float32),
        }
    types = {"ids": jnp.int32, "mask": jnp.bool_, "labels": jnp.int32}
    found = {name: shape((b, length), dtype) for name, dtype in types.items()}
    if model.visual_tokens:
        side = model.config.vision.image_size
        pixels = (b, model.tiles, side, side, 3)
        found["pixels"] = shape(pixels, jnp.float32)
        found["visual_at"] = shape((b, length), jnp.int32)
        found["visual_index"] = shape((b, model.visual_tokens), jnp.int32)
    return found


def model_system(model: Catalogued, options: ModelPlan) -> System:
    """Makes the system that trains a model: next tokens, or a tower's features."""
    lora, linears = lora_config(model, options.lora), ()
    if lora is not None:
        first = "ids" if model.decoder else "pixels"
        linears = find_linears(model.module, model_batch(model, options)[first])
    trained = model.trained[0 if lora else 1]
    if model.decoder is not None:
        return language_system(
            model.module, lora=lora, linears=linears, trained=trained
        )
    return tower_system(model.module, lora=lora, linears=linears)


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

    def predict(variables: Variables, batch: Batch) -> Any:
        return run(variables, batch)["pooled"]

    stage = Stage("student", init, forward, (term,), predict)
    return System("tower", ("pixels",), keep_all, (stage,))


def lora_config(model: Catalogued, options: LoraOptions) -> LoraConfig | None:
    """Returns the adapters' configuration, None for none."""
    if not options.rank:
        return None
    targets = options.targets or (model.layers,)
    return LoraConfig(rank=options.rank, alpha=options.alpha, targets=targets)
