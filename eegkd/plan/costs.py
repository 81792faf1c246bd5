"""The costs of one training step, traced by shape: nothing is compiled or run.

What lies on a device between steps (weights, gradients, optimiser) is exact. What a
step holds besides is an estimate of its peak, before a compiler fuses, reorders or
copies: `tests/plan/test_large_step.py` compares it with XLA's account.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.config import RunConfig
from eegkd.losses.balance import make_balancer
from eegkd.losses.language import CHUNK
from eegkd.ops import count_flops
from eegkd.ops.costs import Costs, count_costs
from eegkd.plan.catalogue import (
    Catalogued,
    ModelPlan,
    get_model,
    lora_config,
    model_batch,
    model_system,
)
from eegkd.systems import SignalConfig, Stage, System, balanced_terms
from eegkd.systems.batches import StageShapes, num_bytes, shapes_of, stage_example
from eegkd.systems.language import run_language
from eegkd.systems.outputs import needs_outputs, output_shapes
from eegkd.train.optimiser import OptimConfig, stage_optimiser
from eegkd.train.parallel import AXIS
from eegkd.train.sharding import path_of
from eegkd.train.state import TrainState, init_state
from eegkd.train.step import make_train_step, upstream_tensors
from eegkd.typing import Batch, StepKeys, Variables

_LAYERS_AHEAD = 2
_VIEWS = ("transpose", "reshape", "sharding_constraint")


class StageCosts(NamedTuple):
    """One training step of a stage on one device.

    Attributes:
        step: Costs with earlier stages cached.
        online: Costs with earlier stages computed; None where the stage reads none.
        activations: Bytes that the forward pass keeps for the backward pass, before
            the compiler fuses.
        batch_bytes: Bytes of the batch, cached tensors included.
        optimiser_bytes: Bytes of the optimiser's state.
        earlier_bytes: Bytes of the earlier stages' variables.
    """

    step: Costs
    online: Costs | None
    activations: int
    batch_bytes: int
    optimiser_bytes: int
    earlier_bytes: int


class TracedStep(NamedTuple):
    """A stage's training by shapes.

    Attributes:
        system: System of the stage.
        stage: The stage.
        variables: The stage's variables.
        state: State of the training.
        batch: One batch to train on.
        step: `(state, frozen, upstream, batch) -> (state, metrics)`.
    """

    system: System
    stage: Stage
    variables: Variables
    state: TrainState
    batch: Batch
    step: Any


def trace_step(
    system: System,
    stage: Stage,
    variables: Variables,
    batch: Batch,
    optim: OptimConfig,
    *,
    balance: str = "fixed",
    axis_name: str | None = None,
    accumulate: int = 1,
) -> TracedStep:
    """Builds a stage's training step and the shapes of what goes in."""
    tx, balancer = (
        stage_optimiser(optim, stage),
        make_balancer(balance, balanced_terms(stage)),
    )

    def start(variables: Variables) -> TrainState:
        return init_state(stage, variables, tx, jax.random.key(0), balancer=balancer)

    step = make_train_step(
        system,
        stage.name,
        tx,
        balancer=balancer,
        axis_name=axis_name,
        accumulate=accumulate,
    )
    state = jax.eval_shape(start, variables)
    return TracedStep(system, stage, variables, state, batch, step)


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
    """Counts the costs of a stage's step.

    Args:
        system: System of the stage.
        stage: Stage that is trained.
        shapes: Shapes of the variables of all stages.
        config: Options of the run.
        signal: Shape of a window.
        batch_size: Windows of one device.
        num_devices: Devices that share the step; None is one, with no collective.
    """
    own = shapes[stage.name].trained
    position = [other.name for other in system.stages].index(stage.name)
    earlier = {s.name: shapes[s.name].finished for s in system.stages[:position]}
    batch = shapes_of(stage_example(system, stage, signal, batch_size))
    read = functools.partial(upstream_tensors, system, stage)
    outputs = output_shapes(system, stage, earlier, signal, batch_size)
    axis = None if num_devices is None else (AXIS, num_devices)
    traced = trace_step(
        system,
        stage,
        own,
        {**batch, "cache": outputs} if outputs else batch,
        config.optim,
        balance=config.train.balance,
        axis_name=axis and AXIS,
        accumulate=config.train.accumulate,
    )
    costs = count_costs(
        traced.step, traced.state, own.frozen, {}, traced.batch, axis=axis
    )
    online = None
    if outputs and not needs_outputs(system, stage):
        extra = count_costs(read, earlier, batch)
        online = Costs(*map(sum, zip(costs, extra, strict=True)))
    kept, _ = saved_arrays(stage, own, batch, outputs)
    saved = max(0, num_bytes(kept) - num_bytes(own.params))
    return StageCosts(
        step=costs,
        online=online,
        activations=saved // config.train.accumulate,
        batch_bytes=num_bytes(batch) + num_bytes(outputs),
        optimiser_bytes=num_bytes(traced.state.opt_state),
        earlier_bytes=num_bytes(earlier) if online else 0,
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


def saved_arrays(
    stage: Stage,
    variables: Variables,
    batch: Batch,
    upstream: Any,
    outputs: tuple[str, ...] | None = None,
) -> tuple[list[Any], list[Any]]:
    """Lists the arrays that the forward pass keeps for the backward one, before fusion.

    Args:
        stage: The stage.
        variables: Variables of the stage.
        batch: One batch.
        upstream: Tensors of earlier stages that it reads.
        outputs: Tensors that the loss reads; None is all.

    Returns:
        The shapes of all arrays kept, and of those that the forward pass computed:
        weights and the batch, or views of them, are there anyway.
    """
    keys = StepKeys(jax.random.key(0), jax.random.key(1))

    def residuals(params: Any, rest: Any, batch: Any, upstream: Any) -> Any:
        def forward(params: Any) -> Any:
            whole = rest._replace(params=params)
            tensors, state = stage.forward(whole, batch, upstream, train=True, key=keys)
            # Whole numbers have no gradient, and no place in one.
            return {
                name: x
                for name, x in tensors.items()
                if jnp.issubdtype(x.dtype, jnp.inexact)
                and (outputs is None or name in outputs)
            }, state

        return jax.vjp(forward, params, has_aux=True)[1]

    args = (variables.params, variables, batch, upstream)
    jaxpr = jax.make_jaxpr(residuals)(*args).jaxpr
    inputs = {id(var) for var in (*jaxpr.invars, *jaxpr.constvars)}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _VIEWS and id(eqn.invars[0]) in inputs:
            inputs |= {id(var) for var in eqn.outvars}
    computed = {
        id(var): var.aval
        for var in jaxpr.outvars
        if id(var) not in inputs and not hasattr(var, "val")  # a constant
    }
    return [var.aval for var in jaxpr.outvars], list(computed.values())


def trace_model(
    name: str, options: ModelPlan, *, depth: int = 0, attention: str | None = "plain"
) -> tuple[Catalogued, TracedStep]:
    """Builds a published model's training step and the shapes of what goes in.

    Args:
        name: Name of the model.
        options: Options of the training.
        depth: As in `get_model`.
        attention: Attention of the decoder; a fused kernel cannot be counted.
    """
    model = get_model(name, options, attention=attention, depth=depth)
    system, batch = model_system(model, options), model_batch(model, options)
    (stage,) = system.stages
    variables = jax.eval_shape(
        lambda example: stage.init(jax.random.key(0), example, {}), batch
    )
    optim = OptimConfig(weight_decay=0.0)
    return model, trace_step(system, stage, variables, batch, optim)


def model_flops(
    model: Catalogued, traced: TracedStep, options: ModelPlan
) -> dict[str, int]:
    """Counts operations of the whole batch, all devices together."""
    lora = lora_config(model, options.lora)
    run = functools.partial(run_language, model.module, lora=lora)
    inputs = {k: x for k, x in traced.batch.items() if k != "target"}

    def step(traced: TracedStep) -> int:
        frozen = traced.variables.frozen
        return count_flops(traced.step, traced.state, frozen, {}, traced.batch)

    found = {"forward": count_flops(run, traced.variables, inputs)}
    found["step"] = found["step_without_recomputation"] = step(traced)
    if options.remat != "none":
        _, plain = trace_model(model.name, dataclasses.replace(options, remat="none"))
        found["step_without_recomputation"] = step(plain)
    if model.decoder is not None:
        # One more token of every example, with a full cache of earlier ones.
        shape = jax.ShapeDtypeStruct((options.batch_size, 1), jnp.int32)
        first = functools.partial(run, room=options.length, logits="none")
        begun = jax.eval_shape(first, traced.variables, {"ids": shape})
        more = lambda variables, batch, cache: run(variables, batch, cache=cache)
        args = (traced.variables, {"ids": shape}, begun["cache"])
        found["decode_token"] = count_flops(more, *args)
    return found


def kv_cache_bytes(model: Catalogued, options: ModelPlan) -> dict[str, int]:
    """Counts keys and values of `length` tokens of every example, on one device."""
    cfg = model.decoder
    if cfg is None:
        raise ValueError(f"{model.name} has no decoder.")
    heads, axis = cfg.num_kv_heads, options.model_axis
    # Heads are cut over the model axis where they divide.
    own = heads // axis if heads % axis == 0 else heads
    each = 2 * cfg.depth * cfg.head_dim * jnp.dtype(options.dtype).itemsize
    tokens = options.length * options.batch_size
    return {
        "bytes_per_token": each * heads,
        "bytes": each * own * tokens // options.data_axis,
    }


def model_step_bytes(
    model: Catalogued, traced: TracedStep, options: ModelPlan
) -> dict[str, int]:
    """Estimates the peak of what a device holds during a step.

    `between_layers` is what the forward pass keeps for the backward pass: with "full"
    the tokens that went into each layer. `one_layer` is what one layer, computed again,
    keeps for its own backward pass. `gathered` are whole layers while they are used
    (this one, and the next on its way), and `logits` a chunk of them with its gradient.
    """
    data, axis = options.data_axis, options.model_axis
    again = 0
    if options.remat != "none":
        kept, more = (
            _computed_bytes(model, trace_model(model.name, other, depth=1)[1], options)
            for other in (options, dataclasses.replace(options, remat="none"))
        )
        again = max(0, more - kept)
    found = {
        # The tokens between layers are whole on each device of the model axis.
        "between_layers": _computed_bytes(model, traced, options) // data,
        "one_layer": again // (data * axis),
    }
    if model.decoder is not None:
        chunk = min(CHUNK, options.length) * model.decoder.vocab_size
        found["logits"] = 2 * 4 * options.batch_size * chunk // (data * axis)
    if options.fully_sharded:
        found["gathered"] = _LAYERS_AHEAD * _layer_bytes(traced.variables) // axis
    return found


def _layer_bytes(variables: Variables) -> int:
    """Returns the bytes of one layer of the largest stack, adapters included."""
    sizes: dict[str, int] = {}
    params = variables.params
    for tree in (params["base"], params.get("lora", {}), variables.frozen):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            before, layers, _ = path_of(keys).partition("layers/")
            if layers:
                own = num_bytes(leaf) // leaf.shape[0]
                sizes[before] = sizes.get(before, 0) + own
    return max(sizes.values(), default=0)


def _computed_bytes(model: Catalogued, traced: TracedStep, options: ModelPlan) -> int:
    """Counts the bytes that the forward pass computes and keeps for the backward pass.

    With fused attention, scores of tokens with tokens are not among it.
    """
    stage = traced.stage
    (term,) = stage.terms
    read = (term.inputs[0].partition(".")[2],)
    _, computed = saved_arrays(stage, traced.variables, traced.batch, {}, read)
    tokens = model.tokens(options.length)

    def are_scores(array: Any) -> bool:
        """Returns whether it holds a number for every two tokens of an example."""
        pairs = tokens**2 * options.batch_size
        return array.shape[-1:] == (tokens,) and math.prod(array.shape) >= pairs

    fused = options.attention == "fused"
    return sum(num_bytes(x) for x in computed if not (fused and are_scores(x)))
