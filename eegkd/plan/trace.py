"""How a model of a known name is trained, by shapes: options and the traced step."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax

from eegkd.errors import InputError
from eegkd.models import LoraConfig
from eegkd.plan.catalogue import Known, Sizes, batch_shapes, get_model, model_system
from eegkd.systems import System
from eegkd.train.optimiser import OptimConfig, make_optimiser
from eegkd.train.state import TrainState, init_state
from eegkd.train.step import make_train_step
from eegkd.typing import Batch, Variables

_ANY_STEPS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Adapters beside the linear layers.

    Attributes:
        rank: Inner width; 0 has none, and trains the model's own weights.
        alpha: Their output is scaled by alpha / rank.
        targets: Paths of linear layers, * for anything; () is all those of the
            decoder's layers, or the tower's.
    """

    rank: int = 0
    alpha: float = 256.0
    targets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """How a model is trained, and on what.

    Attributes:
        lora: Adapters; with them the model's own weights are frozen.
        batch_size: Examples of all devices together.
        length: Positions of an example, of text and images together.
        image: Height and width of an example's image, where the model reads one.
        devices: How many share the batch.
        model_axis: Devices that share examples, and parameters (runner mesh).
        fully_sharded: Cut parameters and optimiser over the data axis too.
        remat: What a layer's backward pass computes again: nothing, all but its input
            (full), or all but products with weights (dots).
        dtype: Of the computation and of weights that are not trained.
        attention: Whether scores of all tokens with all are in memory (plain), or a
            fused kernel of the accelerator holds a few at a time.
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
    data = options.devices // options.model_axis
    if options.batch_size % data:
        raise InputError(
            f"--batch_size {options.batch_size} cannot be split over {data} devices "
            "(--devices over --model_axis): take a multiple of them."
        )


class Traced(NamedTuple):
    """A model's training by shapes.

    Attributes:
        known: The model.
        system: Its one stage.
        variables: Of the stage.
        state: Of the training.
        batch: To train on.
        step: `(state, frozen, upstream, batch) -> (state, metrics)`.
    """

    known: Known
    system: System
    variables: Variables
    state: TrainState
    batch: Batch
    step: Any


def trace_model(
    name: str,
    options: ModelPlan,
    *,
    remat: str | None = None,
    depth: int = 0,
    attention: str | None = "plain",
) -> Traced:
    """Builds a model's training step and the shapes of what goes in.

    Args:
        name: Of the model.
        options: How it is trained.
        remat: In place of the options'.
        depth: As in `get_model`.
        attention: Of the decoder, as there; a fused kernel cannot be counted.
    """
    sizes = Sizes(options.batch_size, options.length, options.image)
    known = get_model(
        name,
        sizes=sizes,
        remat=remat or options.remat,
        dtype=options.dtype,
        attention=attention,
        depth=depth,
    )
    lora = lora_config(known, options.lora)
    system, batch = model_system(known, lora, sizes), batch_shapes(known, sizes)
    (stage,) = system.stages
    variables = jax.eval_shape(
        lambda given: stage.init(jax.random.key(0), given, {}), batch
    )
    tx = make_optimiser(OptimConfig(weight_decay=0.0), _ANY_STEPS)
    state = jax.eval_shape(
        lambda given: init_state(stage, given, tx, jax.random.key(0)), variables
    )
    step = make_train_step(system, stage.name, tx)
    return Traced(known, system, variables, state, batch, step)


def lora_config(known: Known, options: LoraOptions) -> LoraConfig | None:
    """Returns the adapters' configuration, None for none."""
    if not options.rank:
        return None
    targets = options.targets or (known.layers,)
    return LoraConfig(rank=options.rank, alpha=options.alpha, targets=targets)
