"""Costs of a system or a model: parameters, operations, memory, cache, time.

Everything is traced by shape; nothing is initialised, compiled or run.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh

from eegkd.config import RunConfig, stage_config
from eegkd.errors import InputError
from eegkd.ops import count_flops
from eegkd.plan.catalogue import ModelPlan, check_options
from eegkd.plan.chips import Chip, get_chip
from eegkd.plan.costs import (
    StageCosts,
    interpolate,
    kv_cache_bytes,
    model_flops,
    model_step_bytes,
    trace_model,
    trace_stage,
)
from eegkd.plan.parts import count_groups, count_model_parts, count_parts
from eegkd.plan.roofline import sent_bytes, step_roofline
from eegkd.systems import SignalConfig, Stage, System, get_stage, upstream_inputs
from eegkd.systems.batches import (
    EXAMPLE_WINDOWS,
    StageShapes,
    num_bytes,
    shapes_of,
    stage_example,
    stage_shapes,
)
from eegkd.systems.outputs import output_shapes
from eegkd.train.partition import bytes_a_device, locate, mesh_axes, places
from eegkd.train.sharding import AXIS, MODEL

DEVICE_COUNTS = tuple(2**i for i in range(11))


def make_plan(
    make_system: Callable[[Any], System],
    config: Any,
    *,
    chip: Chip | None = None,
    device_counts: Sequence[int] = (),
    fully_sharded: bool = False,
    num_windows: int = 0,
) -> dict[str, Any]:
    """Returns the account of a system, as JSON values.

    Bytes and operations of a step are those of one device, which holds all variables
    and its share of the batch.

    Args:
        make_system: `config -> System`.
        config: A `RunConfig` that also holds the system's options and its `signal`;
            `train.devices` share the batch.
        chip: Adds `roofline`: memory and least time of a step on it.
        device_counts: Numbers of devices to account for; none takes the config's.
        fully_sharded: Cut parameters, gradients and optimiser over all devices.
        num_windows: Windows of a whole cache.

    Raises:
        InputError: If the runner cannot share the step in that way.
    """
    _check_runner(config, device_counts, fully_sharded)
    signal, system = config.signal, make_system(config)
    shapes = stage_shapes(system, signal)
    devices = max(1, config.train.devices)
    own = {
        stage.name: stage_config(config, stage, last=stage is system.stages[-1])
        for stage in system.stages
    }
    batches = {name: _share(found, devices) for name, found in own.items()}

    def trace(stage: Stage, size: int) -> StageCosts:
        return trace_stage(
            system,
            stage,
            shapes,
            own[stage.name],
            signal,
            batch_size=size,
            # With a chip, the collectives of more devices are asked for as well.
            num_devices=devices if devices > 1 or chip is not None else None,
        )

    traced = {s.name: trace(s, batches[s.name]) for s in system.stages if s.terms}
    plan: dict[str, Any] = {
        "system": system.name,
        "signal": _signal(signal, config.student_channels),
        "batch_size": config.train.batch_size,
        "devices": devices,
        "stages": {
            stage.name: _plan_stage(system, stage, shapes, signal, devices, traced)
            for stage in system.stages
        },
        "cache": _cache(system, shapes, signal, num_windows),
    }
    if chip is None:
        return plan
    counts = tuple(device_counts) or (devices,)
    plan |= {"chip": chip._asdict(), "fully_sharded": fully_sharded, "roofline": {}}
    for name, costs in traced.items():
        # Costs grow with a device's batch on a straight line through two traced sizes.
        batch = batches[name]
        others = {_share(own[name], count) for count in counts} - {batch}
        small, first = 1 if batch > 1 else 2, (batch, costs)
        other = (small, trace(get_stage(system, name), small)) if others else first
        memory = plan["stages"][name]["memory"]
        plan["roofline"][name] = [
            line
            for count in counts
            for line in _roofline_rows(
                chip, own[name], memory, (first, other), count, fully_sharded
            )
        ]
    return plan


def plan_model(name: str, options: ModelPlan) -> dict[str, Any]:
    """Returns the account of a published model, as JSON values.

    Raises:
        InputError: If there is no such model, or the options do not fit it.
    """
    check_options(options)
    chip = get_chip(options.chip) if options.chip else None
    model, traced = trace_model(name, options)
    variables, data = traced.variables, options.data_axis
    mesh = AbstractMesh((data, options.model_axis), (AXIS, MODEL))
    axes = mesh_axes(model=options.model_axis, fully_sharded=options.fully_sharded)
    place = locate(mesh, axes)
    weights = {"params": variables.params, "frozen": variables.frozen}
    parts = count_model_parts(variables, model.group)
    kept = functools.partial(bytes_a_device, mesh=mesh, place=place)
    memory = {
        "parameters": kept(variables.params),
        "frozen": kept(variables.frozen),
        "gradients": kept(variables.params),
        "optimiser": kept(traced.state.opt_state),
        "batch": num_bytes(traced.batch) // data,
    }
    inside = model_step_bytes(model, traced, options)
    plan: dict[str, Any] = {
        "model": name,
        "options": dataclasses.asdict(options),
        "mesh": {AXIS: data, MODEL: options.model_axis},
        "cut_along": list(axes),
        "parameters": sum(part.parameters for part in parts),
        "trained": sum(part.parameters for part in parts if part.trained),
        "groups": count_groups(parts),
        "parts": [part._asdict() for part in parts],
        "visual_tokens": model.visual_tokens,
        "flops": model_flops(model, traced, options),
        # The table knows each path and cuts each axis, or these go by their shapes.
        "cut_by_shape": {
            path: found.reason
            for path, _, found in places(weights, place)
            if axes and found.reason not in ("table", "small")
        },
        "memory": memory,
        "memory_estimate": inside,
        "memory_bytes": sum(memory.values()) + sum(inside.values()),
    }
    if model.decoder is not None:
        plan["kv_cache"] = kv_cache_bytes(model, options)
    if chip is not None:
        plan["chip"] = chip._asdict()
        plan["fits"] = plan["memory_bytes"] <= chip.memory_bytes
        seconds = plan["flops"]["step"] / options.devices / chip.half_flops
        plan["least_step_s"] = seconds
    return plan


def _check_runner(
    config: RunConfig, device_counts: Sequence[int], fully_sharded: bool
) -> None:
    runner, most = config.train.runner, max(*device_counts, config.train.devices, 1)
    if runner == "single" and most > 1:
        raise InputError(
            f"The runner single uses one device, not {most}: choose shard_map, pmap "
            "or mesh."
        )
    if fully_sharded and runner not in ("auto", "mesh"):
        raise InputError(f"The runner {runner} keeps parameters whole: use mesh.")


def _signal(signal: SignalConfig, student_channels: Sequence[str]) -> dict[str, Any]:
    return {
        "n_chans": signal.n_chans,
        "student_channels": list(student_channels),
        "n_times": signal.n_times,
        "rate": signal.rate,
        "classes": list(signal.classes),
    }


def _share(config: RunConfig, num_devices: int) -> int:
    """Returns one device's windows, rounded up: the batch grows to a multiple."""
    return -(-config.train.batch_size // num_devices)


def _plan_stage(
    system: System,
    stage: Stage,
    shapes: Mapping[str, StageShapes],
    signal: SignalConfig,
    num_devices: int,
    traced: Mapping[str, StageCosts],
) -> dict[str, Any]:
    own = shapes[stage.name]
    parts = count_parts(own.trained)
    blocks = [part for part in parts if part.copies > 1]
    deployed = jax.tree.leaves(own.finished.params)
    plan: dict[str, Any] = {
        "parameters": sum(part.parameters for part in parts),
        "trained": sum(part.parameters for part in parts if part.trained),
        # What prediction reads; a scalar such as a logit scale is no part of a branch.
        "eeg_branch": sum(math.prod(x.shape) for x in deployed if x.shape),
        "groups": count_groups(parts),
        "blocks": {part.name: part.parameters // part.copies for part in blocks},
        "parts": [part._asdict() for part in parts],
        "flops_window": _flops_window(system, stage, shapes, signal),
    }
    if not stage.terms:
        return plan
    costs = traced[stage.name]
    if stage.options.batch_size:
        plan["batch_size"] = stage.options.batch_size
    plan["flops_step"] = costs.step.flops
    if costs.online is not None:
        plan["flops_step_online"] = costs.online.flops
    plan["memory"] = {
        "parameters": num_bytes(own.trained.params),
        "gradients": num_bytes(own.trained.params),
        "optimiser": costs.optimiser_bytes,
        "frozen_and_state": num_bytes((own.trained.frozen, own.trained.state)),
        "batch": costs.batch_bytes,
        "earlier_stages_online": costs.earlier_bytes,
        "activations_estimate": costs.activations,
    }
    plan["collective_bytes"] = sent_bytes(costs.step, num_devices)
    return plan


def _flops_window(
    system: System,
    stage: Stage,
    shapes: Mapping[str, StageShapes],
    signal: SignalConfig,
) -> int | None:
    """Counts the operations of predicting one window; None for what predicts none."""
    if stage.predict is None:
        return None
    batch, windows = shapes_of(stage_example(system, stage, signal)), 1
    if stage.scope == "recording":
        earlier = {name: found.finished for name, found in shapes.items()}
        outputs = output_shapes(system, stage, earlier, signal)
        batch, windows = {**batch, "cache": outputs}, EXAMPLE_WINDOWS
    own = shapes[stage.name].finished
    return count_flops(stage.predict, own, batch) // windows


def _roofline_rows(
    chip: Chip,
    config: RunConfig,
    memory: Mapping[str, int],
    line: tuple[tuple[int, StageCosts], tuple[int, StageCosts]],
    num_devices: int,
    fully_sharded: bool,
) -> list[dict[str, Any]]:
    """Returns the rows of a stage on some devices: one, or cached and online."""
    share = _share(config, num_devices)
    costs = interpolate(*line, share)
    cut = num_devices if fully_sharded else 1
    kept = memory["parameters"] + memory["gradients"] + memory["optimiser"]
    kept = -(-kept // cut) + -(-memory["frozen_and_state"] // cut)
    kept += costs.batch_bytes + costs.activations
    sharded = memory["parameters"] if fully_sharded else 0
    rows = []
    for earlier, given, extra in (
        ("none" if costs.online is None else "cached", costs.step, 0),
        ("online", costs.online, -(-costs.earlier_bytes // cut)),
    ):
        if given is None:
            continue
        roofline = step_roofline(chip, given, num_devices, sharded_bytes=sharded)
        rows.append(
            {
                "devices": num_devices,
                "earlier_stages": earlier,
                "batch_size": share * num_devices,
                "batch_per_device": share,
                "memory_bytes": kept + extra,
                "fits": kept + extra <= chip.memory_bytes,
                "collective_bytes": sent_bytes(
                    given, num_devices, sharded_bytes=sharded
                ),
                **roofline._asdict(),
                "windows_per_s": share * num_devices / roofline.step_s,
            }
        )
    return rows


def _cache(
    system: System,
    shapes: Mapping[str, StageShapes],
    signal: SignalConfig,
    num_windows: int,
) -> dict[str, Any]:
    """Counts the bytes that the student reads of earlier stages, per window and all."""
    student = system.stages[-1]
    earlier = {stage.name: shapes[stage.name].finished for stage in system.stages[:-1]}
    read = output_shapes(system, student, earlier, signal)
    tensors = {
        f"{stage}.{name}": num_bytes(value)
        for stage, group in read.items()
        for name, value in group.items()
    }
    return {
        "tensors": tensors,
        "bytes_per_window": sum(tensors.values()),
        "windows": num_windows,
        "bytes": num_windows * sum(tensors.values()),
        "reads": list(upstream_inputs(student)),
    }
