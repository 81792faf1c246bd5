"""What a system costs before it runs: parameters, operations, memory, cache.

Everything is traced by shape; nothing is initialised, compiled or run.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.ops import count_flops
from eegkd.pipeline.config import RunConfig
from eegkd.pipeline.shapes import StageShapes, example_shapes, stage_shapes
from eegkd.systems import SignalConfig, Stage, System, upstream_inputs
from eegkd.train.optimiser import make_optimiser
from eegkd.train.state import TrainState, init_state
from eegkd.train.step import make_train_step, upstream_tensors
from eegkd.typing import StepKeys, Variables

PROMPTS = "prompts"
_MODULE_DEPTH = 3
_ANY_STEPS = 1000


class Part(NamedTuple):
    """Parameters of one part of a model, or of several equal ones.

    Attributes:
        name: "eeg/stem"; "eeg/block" stands for `copies` blocks.
        copies: How many there are.
        parameters: Of all copies together.
        trained: Whether they have a gradient.
    """

    name: str
    copies: int
    parameters: int
    trained: bool


def make_plan(make_system: Callable[[Any], System], config: Any) -> dict[str, Any]:
    """Returns the account of a system as JSON can hold it.

    Bytes and operations of a step are those of one device, which holds all variables
    and its share of the batch.

    Args:
        make_system: Of the system.
        config: A `RunConfig` that also holds the system's options and its `signal`.
    """
    signal, system = config.signal, make_system(config)
    shapes = stage_shapes(system, signal)
    devices = max(1, config.train.devices)
    batch = max(1, config.train.batch_size // devices)
    stages = {
        stage.name: _plan_stage(system, stage, shapes, config, signal, batch)
        for stage in system.stages
    }
    return {
        "system": system.name,
        "signal": {
            "n_chans": signal.n_chans,
            "n_times": signal.n_times,
            "rate": signal.rate,
            "classes": list(signal.classes),
        },
        "batch_size": config.train.batch_size,
        "devices": devices,
        "stages": stages,
        "cache": _cache(system, shapes, signal),
    }


def _plan_stage(
    system: System,
    stage: Stage,
    shapes: Mapping[str, StageShapes],
    config: RunConfig,
    signal: SignalConfig,
    batch_size: int,
) -> dict[str, Any]:
    own = shapes[stage.name]
    parts = count_parts(own.trained)
    blocks = [part for part in parts if part.copies > 1]
    window = {name: example_shapes(signal)[name] for name in system.inputs}
    predict = functools.partial(system.predict, stage.name)
    deployed = jax.tree.leaves(own.finished.params)
    plan: dict[str, Any] = {
        "parameters": sum(part.parameters for part in parts),
        "trained": sum(part.parameters for part in parts if part.trained),
        # What prediction reads; a scalar such as a logit scale is no part of a branch.
        "eeg_branch": sum(math.prod(x.shape) for x in deployed if x.shape),
        "blocks": {part.name: part.parameters // part.copies for part in blocks},
        "parts": [part._asdict() for part in parts],
        "flops_window": count_flops(predict, own.finished, window),
    }
    if not stage.terms:
        return plan
    tx = make_optimiser(config.optim, _ANY_STEPS, labels=stage.labels)
    state = jax.eval_shape(
        lambda v: init_state(stage, v, tx, jax.random.key(0)), own.trained
    )
    earlier = {
        other.name: shapes[other.name].finished
        for other in system.stages[: _position(system, stage)]
    }
    batch = example_shapes(signal, batch_size)
    outputs = jax.eval_shape(
        functools.partial(upstream_tensors, system, stage), earlier, batch
    )
    step = make_train_step(system, stage.name, tx, accumulate=config.train.accumulate)
    frozen = own.trained.frozen

    def flops(upstream: Mapping[str, Variables], batch: Mapping[str, Any]) -> int:
        return count_flops(step, state, frozen, upstream, batch)

    plan["flops_step"] = flops({}, {**batch, "cache": outputs} if outputs else batch)
    if outputs:
        plan["flops_step_online"] = flops(earlier, batch)
    saved = _saved_bytes(stage, own.trained, batch, outputs)
    plan["memory"] = {
        "parameters": num_bytes(own.trained.params),
        "gradients": num_bytes(own.trained.params),
        "optimiser": _moments(state),
        "frozen_and_state": num_bytes((own.trained.frozen, own.trained.state)),
        "batch": num_bytes(batch) + num_bytes(outputs),
        "earlier_stages_online": num_bytes(earlier) if outputs else 0,
        "activations_estimate": saved // config.train.accumulate,
    }
    return plan


def count_parts(variables: Variables) -> list[Part]:
    """Counts parameters by part; numbered equals ("block_0", ...) are one line.

    A part is a top-level group, or, where a group holds several modules, each of them.
    Prompts anywhere in a group are a part of their own. Frozen weights are listed,
    frozen constants (vectors that no module owns) are not.
    """
    found: dict[tuple[str, bool], dict[str, int]] = {}
    for trained, tree in ((True, variables.params), (False, variables.frozen)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            path = [str(key.key) for key in keys]
            if not trained and len(path) == 1:
                continue
            name = _part_name(path)
            stem, _, number = name.rpartition("_")
            line = stem if number.isdigit() else name
            copies = found.setdefault((line, trained), {})
            copies[name] = copies.get(name, 0) + math.prod(leaf.shape)
    return [
        Part(line, len(copies), sum(copies.values()), trained)
        for (line, trained), copies in found.items()
    ]


def _part_name(path: Sequence[str]) -> str:
    if PROMPTS in path[1:]:
        return f"{path[0]}/{PROMPTS}"
    return "/".join(path[:2]) if len(path) > _MODULE_DEPTH else path[0]


def num_bytes(tree: Any) -> int:
    """Adds up the bytes of all arrays of a tree."""
    sizes = (
        math.prod(x.shape) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    return sum(sizes)


def _moments(state: TrainState) -> int:
    return num_bytes(state.opt_state)


def _position(system: System, stage: Stage) -> int:
    return [other.name for other in system.stages].index(stage.name)


def _saved_bytes(
    stage: Stage, variables: Variables, batch: Mapping[str, Any], upstream: Any
) -> int:
    """Adds up what the forward pass keeps for the backward pass, before fusion."""

    def residuals(params: Any, rest: Any, batch: Any, upstream: Any) -> Any:
        keys = StepKeys(jax.random.key(0), jax.random.key(1))

        def forward(params: Any) -> Any:
            given = rest._replace(params=params)
            tensors, state = stage.forward(given, batch, upstream, train=True, key=keys)
            return tensors, state

        return jax.vjp(forward, params, has_aux=True)[1]

    kept = jax.eval_shape(residuals, variables.params, variables, batch, upstream)
    return max(0, num_bytes(kept) - num_bytes(variables.params))


def _cache(
    system: System, shapes: Mapping[str, StageShapes], signal: SignalConfig
) -> dict[str, Any]:
    """What the student reads of earlier stages: bytes a window."""
    student = system.stages[-1]
    earlier = {stage.name: shapes[stage.name].finished for stage in system.stages[:-1]}
    read = jax.eval_shape(
        functools.partial(upstream_tensors, system, student),
        earlier,
        example_shapes(signal),
    )
    tensors = {
        f"{stage}.{name}": num_bytes(value)
        for stage, group in read.items()
        for name, value in group.items()
    }
    return {
        "tensors": tensors,
        "bytes_per_window": sum(tensors.values()),
        "reads": list(upstream_inputs(student)),
    }
