"""The costs of one stage's training step on one device, traced by shape."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.config import RunConfig
from eegkd.losses.balance import make_balancer
from eegkd.ops.costs import Costs, count_costs
from eegkd.systems import SignalConfig, Stage, System
from eegkd.systems.batches import StageShapes, example_shapes, num_bytes
from eegkd.train.optimiser import stage_optimiser
from eegkd.train.parallel import AXIS
from eegkd.train.state import TrainState, init_state
from eegkd.train.step import make_train_step, upstream_tensors
from eegkd.typing import StepKeys, Variables


class StageCosts(NamedTuple):
    """One training step of a stage on one device.

    Attributes:
        step: With earlier stages cached.
        online: With earlier stages computed; None where the stage reads none.
        activations: Bytes that the forward pass keeps for the backward pass, before
            the compiler fuses.
        batch_bytes: Of the batch, cached tensors included.
        optimiser_bytes: Of the optimiser's state.
        earlier_bytes: Of the earlier stages' variables.
    """

    step: Costs
    online: Costs | None
    activations: int
    batch_bytes: int
    optimiser_bytes: int
    earlier_bytes: int


def trace_stage(
    system: System,
    stage: Stage,
    shapes: Mapping[str, StageShapes],
    config: RunConfig,
    signal: SignalConfig,
    *,
    batch_size: int,
    num_devices: int | None,
) -> StageCosts:
    """Traces a stage's step; nothing is compiled or run.

    Args:
        system: Whose stage it is.
        stage: One that is trained.
        shapes: Of the variables of all stages.
        config: Of the run.
        signal: The shape of a window.
        batch_size: Of one device.
        num_devices: How many share the step; None is one alone, with no collective.
    """
    own = shapes[stage.name].trained
    position = [other.name for other in system.stages].index(stage.name)
    earlier = {s.name: shapes[s.name].finished for s in system.stages[:position]}
    batch = example_shapes(signal, batch_size)
    read = functools.partial(upstream_tensors, system, stage)
    outputs = jax.eval_shape(read, earlier, batch)
    tx = stage_optimiser(config.optim, stage)
    balancer = make_balancer(config.train.balance, stage.terms)
    state: TrainState = jax.eval_shape(
        lambda v: init_state(stage, v, tx, jax.random.key(0), balancer=balancer), own
    )
    axis = None if num_devices is None else (AXIS, num_devices)
    accumulate = config.train.accumulate
    step = make_train_step(
        system,
        stage.name,
        tx,
        balancer=balancer,
        axis_name=axis and AXIS,
        accumulate=accumulate,
    )
    given = {**batch, "cache": outputs} if outputs else batch
    costs = count_costs(step, state, own.frozen, {}, given, axis=axis)
    online = None
    if outputs:
        extra = count_costs(read, earlier, batch)
        online = Costs(*map(sum, zip(costs, extra, strict=True)))
    saved = _saved_bytes(stage, own, batch, outputs)
    return StageCosts(
        step=costs,
        online=online,
        activations=saved // accumulate,
        batch_bytes=num_bytes(batch) + num_bytes(outputs),
        optimiser_bytes=num_bytes(state.opt_state),
        earlier_bytes=num_bytes(earlier) if outputs else 0,
    )


def interpolate(
    one: tuple[int, StageCosts], two: tuple[int, StageCosts], batch_size: int
) -> StageCosts:
    """Returns the costs at a batch size from those at two others, as a straight line.

    All costs grow so with a device's batch, but for two small parts: similarities of
    a batch-global loss, and products that take another form for small batches (the
    offsets of relative attention). At the paper's sizes they are about 1 %.
    """
    (b1, first), (b2, second) = one, two
    if b1 == b2:
        return first

    def line(x: Any, y: Any) -> Any:
        return max(0, x + (y - x) * (batch_size - b1) // (b2 - b1))

    return jax.tree.map(line, first, second)


def _saved_bytes(
    stage: Stage, variables: Variables, batch: Mapping[str, Any], upstream: Any
) -> int:
    """Adds up what the forward pass keeps for the backward pass, before fusion."""

    def residuals(params: Any, rest: Any, batch: Any, upstream: Any) -> Any:
        keys = StepKeys(jax.random.key(0), jax.random.key(1))

        def forward(params: Any) -> Any:
            given = rest._replace(params=params)
            tensors, state = stage.forward(given, batch, upstream, train=True, key=keys)
            # Whole numbers have no gradient, and no place in one.
            return {
                name: x
                for name, x in tensors.items()
                if jnp.issubdtype(x.dtype, jnp.inexact)
            }, state

        return jax.vjp(forward, params, has_aux=True)[1]

    kept = jax.eval_shape(residuals, variables.params, variables, batch, upstream)
    return max(0, num_bytes(kept) - num_bytes(variables.params))
