"""AdamW with warm-up, cosine decay, clipping, and learning rates by group and depth."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eegkd.systems import Stage
from eegkd.typing import Array, Float, Int, PyTree

ANY_STEPS = 1000
"""Length of a schedule where only the cost of a step matters."""

_UNDECAYED = ("bias", "scale", "gain", "token", "position", "time")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Options of the optimiser.

    Attributes:
        learning_rate: Peak of the schedule.
        teacher_learning_rate: Peak for stages before the student; 0 takes the same.
        bert_scale: Factor on the rate of parameters labelled "bert".
        head_scale: Factor on the rate of parameters labelled "head": a foundation
            model's new head takes a larger one than its backbone.
        layer_decay: Layer-wise rates, of stages that say how deep a parameter is: the
            factor from one layer to the one before; 1 is one rate for all.
        final_rate: Rate at the end of the cosine.
        weight_decay: Decoupled; on matrices alone (see `decay_mask`).
        warmup_fraction: Part of the steps over which the rate rises from 0.
        clip_norm: Largest global norm of the gradient; 0 is no clipping.
        schedule: After the warm-up: cosine to final_rate, or constant.
        b1: Adam's decay of the first moment.
        b2: Adam's decay of the second moment.
    """

    learning_rate: float = 1e-4
    teacher_learning_rate: float = 0.0
    bert_scale: float = 0.1
    head_scale: float = 1.0
    layer_decay: float = 1.0
    final_rate: float = 0.0
    weight_decay: float = 0.05
    warmup_fraction: float = 0.05
    clip_norm: float = 1.0
    schedule: Literal["cosine", "constant"] = "cosine"
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(
                f"warmup_fraction is in [0, 1); got {self.warmup_fraction}."
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is in (0, 1]; got {self.layer_decay}.")
        least = min(
            *(self.teacher_learning_rate, self.clip_norm, self.weight_decay),
            *(self.bert_scale, self.head_scale, self.final_rate),
        )
        if self.learning_rate <= 0 or least < 0:
            raise ValueError(f"An option of {self} is out of range.")


class RateState(NamedTuple):
    """Updates done, the learning rate of the last one, and a factor on the schedule.

    As an array the factor is an input of the compiled step, so that rates can be
    tuned without compiling again.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    factor: Float[Array, ""]


def make_optimiser(
    config: OptimConfig,
    num_steps: int,
    labels: Callable[[PyTree], PyTree] | None = None,
    depths: Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformation:
    """Builds the optimiser of a run of `num_steps` updates.

    Args:
        config: Options of the optimiser.
        num_steps: Updates until the cosine ends.
        labels: A stage's `labels`: parameters -> the group of each, "default", "bert"
            or "head"; None puts all in "default".
        depths: A stage's `depths`: parameters -> the depth of each, for `layer_decay`;
            None gives all the same rate.
    """
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    parts += [
        optax.scale_by_adam(b1=config.b1, b2=config.b2),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    ]
    if labels is not None:
        groups: dict[Any, optax.GradientTransformation] = {
            "default": optax.identity(),
            "bert": optax.scale(config.bert_scale),
            "head": optax.scale(config.head_scale),
        }
        parts.append(optax.multi_transform(groups, labels))
    if depths is not None and config.layer_decay < 1:
        parts.append(scale_by_depth(config.layer_decay, depths))
    parts.append(_scale_by_rate(make_schedule(config, num_steps)))
    return optax.chain(*parts)


def stage_optimiser(
    config: OptimConfig, stage: Stage, num_steps: int = ANY_STEPS
) -> optax.GradientTransformation:
    """Builds the optimiser of a stage, by its parameter groups and layer depths."""
    return make_optimiser(config, num_steps, labels=stage.labels, depths=stage.depths)


def scale_learning_rate(opt_state: PyTree, factor: float) -> PyTree:
    """Returns an optimiser's state whose whole schedule is multiplied by `factor`."""
    value = jnp.asarray(factor, jnp.float32)
    return optax.tree_utils.tree_set(opt_state, factor=value)


def make_schedule(config: OptimConfig, num_steps: int) -> optax.Schedule:
    """Builds the learning rate by update: linear warm-up, then the schedule."""
    warmup = round(config.warmup_fraction * num_steps)
    peak = config.learning_rate
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    else:
        end = config.final_rate / peak
        after = optax.cosine_decay_schedule(peak, max(num_steps - warmup, 1), end)
    if not warmup:
        return after
    # From peak / warmup, so that the first update is not lost.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def scale_by_depth(
    decay: float, depths: Callable[[PyTree], PyTree]
) -> optax.GradientTransformation:
    """Scales updates by `decay ** (deepest - depth)`, the deepest ones by 1.

    Args:
        decay: Factor from one depth to the one before.
        depths: Parameters -> the depth of each: a number, or one per row of an array of
            stacked layers.

    References:
        LaBraM's and BEiT's layer decay; depth 0 is the embedding, a head is deepest.
    """

    def update(updates, state, params=None):
        del params
        found = jax.tree.map(np.asarray, depths(updates))
        deepest = max(float(depth.max()) for depth in jax.tree.leaves(found))

        def scale(update: Array, depth: np.ndarray) -> Array:
            factor = decay ** (deepest - depth)
            factor = factor.reshape(factor.shape + (1,) * (update.ndim - factor.ndim))
            return update * jnp.asarray(factor, update.dtype)

        return jax.tree.map(scale, updates, found), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_mask(params: PyTree) -> PyTree:
    """Returns the mask of weight decay: True for arrays of two axes or more.

    Excepted by their names are biases, scales and gains of any shape (attention's
    biases have two axes, stacked ones too), prompts and tables of tokens or positions.
    """

    def decays(path, x):
        names = [str(getattr(part, "key", part)).lower() for part in path]
        kept_out = names[-1].endswith(_UNDECAYED) or any("prompt" in n for n in names)
        return jnp.ndim(x) >= 2 and not kept_out

    return jax.tree_util.tree_map_with_path(decays, params)


def _scale_by_rate(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Scales by minus the rate, and keeps the rate in the state for the metrics."""

    def init(params):
        del params
        zero, one = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
        return RateState(jnp.zeros((), jnp.int32), zero, one)

    def update(updates, state, params=None):
        del params
        rate = state.factor * jnp.asarray(schedule(state.count), jnp.float32)
        updates = jax.tree.map(lambda u: (-rate).astype(u.dtype) * u, updates)
        return updates, RateState(state.count + 1, rate, state.factor)

    return optax.GradientTransformation(init, update)
