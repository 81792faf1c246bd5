"""What a system costs before it runs: parameters, operations, memory, cache, time.

Everything is traced by shape; nothing is initialised, compiled or run.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from eegkd.config import RunConfig
from eegkd.errors import InputError
from eegkd.ops import count_flops
from eegkd.plan.chips import Chip
from eegkd.plan.costs import StageCosts, interpolate, trace_stage
from eegkd.plan.roofline import sent_bytes, step_roofline
from eegkd.systems import SignalConfig, Stage, System, upstream_inputs
from eegkd.systems.batches import StageShapes, example_shapes, num_bytes, stage_shapes
from eegkd.train.step import upstream_tensors
from eegkd.typing import Variables

__all__ = ["DEVICE_COUNTS", "Part", "count_parts", "make_plan", "num_bytes"]

PROMPTS = "prompts"
DEVICE_COUNTS = tuple(2**i for i in range(11))
_MODULE_DEPTH = 3


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


def make_plan(
    make_system: Callable[[Any], System],
    config: Any,
    *,
    chip: Chip | None = None,
    device_counts: Sequence[int] = (),
    fully_sharded: bool = False,
    num_windows: int = 0,
) -> dict[str, Any]:
    """Returns the account of a system as JSON can hold it.

    Bytes and operations of a step are those of one device, which holds all variables
    and its share of the batch.

    Args:
        make_system: Of the system.
        config: A `RunConfig` that also holds the system's options and its `signal`;
            `train.devices` share the batch.
        chip: Adds `roofline`: memory and least time of a step on it.
        device_counts: For these numbers of devices; none takes the config's.
        fully_sharded: Cut parameters, gradients and optimiser over all devices.
        num_windows: Of which the cache's size is told.

    Raises:
        InputError: If the runner cannot do it.
    """
    _check_runner(config, device_counts, fully_sharded)
    signal, system = config.signal, make_system(config)
    shapes = stage_shapes(system, signal)
    devices = max(1, config.train.devices)
    batch = _share(config, devices)

    def trace(stage: Stage, size: int) -> StageCosts:
        return trace_stage(
            system,
            stage,
            shapes,
            config,
            signal,
            batch_size=size,
            # With a chip, the collectives of more devices are asked for as well.
            num_devices=devices if devices > 1 or chip is not None else None,
        )

    traced = {stage.name: trace(stage, batch) for stage in system.stages if stage.terms}
    plan: dict[str, Any] = {
        "system": system.name,
        "signal": {
            "n_chans": signal.n_chans,
            "student_channels": list(config.student_channels),
            "n_times": signal.n_times,
            "rate": signal.rate,
            "classes": list(signal.classes),
        },
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
    # Costs grow with a device's batch on a straight line through two traced sizes.
    others = {_share(config, count) for count in counts} - {batch}
    small = 1 if batch > 1 else 2
    plan |= {"chip": chip._asdict(), "fully_sharded": fully_sharded, "roofline": {}}
    for stage in system.stages:
        if not stage.terms:
            continue
        known = (batch, traced[stage.name])
        line = (known, (small, trace(stage, small)) if others else known)
        memory = plan["stages"][stage.name]["memory"]
        plan["roofline"][stage.name] = [
            row
            for count in counts
            for row in _roofline_rows(chip, config, memory, line, count, fully_sharded)
        ]
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
    window = {name: example_shapes(signal)[name] for name in system.inputs}
    predict = functools.partial(system.predict, stage.name)
    deployed = jax.tree.leaves(own.finished.params)
    plan: dict[str, Any] = {
        "parameters": sum(part.parameters for part in parts),
        "trained": sum(part.parameters for part in parts if part.trained),
        # What prediction reads; a scalar such as a logit scale is no part of a branch.
        "eeg_branch": sum(math.prod(x.shape) for x in deployed if x.shape),
        "groups": count_groups(own.trained),
        "blocks": {part.name: part.parameters // part.copies for part in blocks},
        "parts": [part._asdict() for part in parts],
        "flops_window": count_flops(predict, own.finished, window),
    }
    if not stage.terms:
        return plan
    costs = traced[stage.name]
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


def _roofline_rows(
    chip: Chip,
    config: RunConfig,
    memory: Mapping[str, int],
    line: tuple[tuple[int, StageCosts], tuple[int, StageCosts]],
    num_devices: int,
    fully_sharded: bool,
) -> list[dict[str, Any]]:
    """Accounts for a stage on some devices: one row, or cached and online."""
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


def count_groups(variables: Variables) -> dict[str, int]:
    """Counts parameters by top-level group, trained or not: backbone, head, ..."""
    found: dict[str, int] = {}
    for part in count_parts(variables):
        group = part.name.partition("/")[0]
        found[group] = found.get(group, 0) + part.parameters
    return found


def _part_name(path: Sequence[str]) -> str:
    if PROMPTS in path[1:]:
        return f"{path[0]}/{PROMPTS}"
    return "/".join(path[:2]) if len(path) > _MODULE_DEPTH else path[0]


def _cache(
    system: System,
    shapes: Mapping[str, StageShapes],
    signal: SignalConfig,
    num_windows: int,
) -> dict[str, Any]:
    """What the student reads of earlier stages: bytes a window, and of all."""
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
        "windows": num_windows,
        "bytes": num_windows * sum(tensors.values()),
        "reads": list(upstream_inputs(student)),
    }
