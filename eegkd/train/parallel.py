"""Runners, which spread one device's step over several.

The step says what is reduced (`axis_name`); a runner says where it runs. All of them
give the numbers of a single device, up to rounding and to the dropout of each device.
Under several processes (`train.distributed`) each hands in its own part of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eegkd.errors import InputError
from eegkd.train import sharding
from eegkd.train.partition import mesh_axes, partition_rule
from eegkd.train.sharding import AXIS, MIN_SHARDED, Devices, batch_size, make_mesh
from eegkd.train.step import Step
from eegkd.typing import Batch

MakeStep = Callable[[str | None], Step]


class Runner(NamedTuple):
    """A compiled step, and the layout of its arguments.

    Attributes:
        step: `(state, frozen, upstream, batch) -> (state, metrics)`; donates `state`.
        place: Puts a state, frozen variables or upstream on the devices; every process
            hands in the same values.
        put: Puts a host batch on the devices, split along its first axis; every process
            hands in its part of the global batch.
        num_devices: Number of devices, over all processes.
    """

    step: Step
    place: Callable[[Any], Any]
    put: Callable[[Batch], Any]
    num_devices: int


def single(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs on one device: the first of `devices`.

    Raises:
        InputError: With several processes: each would train alone.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"The runner single with {jax.process_count()} processes: use shard_map, "
            "pmap or mesh."
        )
    device = (devices or jax.devices())[0]
    place = lambda tree: jax.device_put(tree, device)

    def put(batch: Batch) -> Any:
        batch_size(batch, 1)
        return place(batch)

    return Runner(jax.jit(make_step(None), donate_argnums=0), place, put, 1)


def pmap(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs by `jax.pmap`: the batch arrives as [devices, b / devices, ...].

    With several processes, pmap sees each one's own devices alone: state and batch stay
    local arrays, and only its collectives reach across.
    """
    over = make_mesh(devices)
    local = over.local_mesh
    num = local.size
    step = jax.pmap(
        make_step(AXIS),
        AXIS,
        in_axes=(None, None, None, 0),
        out_axes=None,  # type: ignore[arg-type]
        devices=list(over.devices.flat),
        donate_argnums=0,
    )

    def put(batch: Batch) -> Any:
        size = batch_size(batch, num)
        cut = jax.tree.map(
            lambda x: np.reshape(x, (num, size // num, *np.shape(x)[1:])), batch
        )
        return jax.device_put(cut, NamedSharding(local, PartitionSpec(AXIS)))

    return Runner(step, sharding.placer(local), put, over.size)


def shard_map(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs by `jax.shard_map` under `jax.jit`: the default on several devices."""
    over = make_mesh(devices)
    spec = PartitionSpec()
    # With check_vma, gradients of replicated parameters arrive summed over devices.
    mapped = jax.shard_map(
        make_step(AXIS),
        mesh=over,
        in_specs=(spec, spec, spec, PartitionSpec(AXIS)),
        out_specs=spec,
        check_vma=False,
    )
    step = jax.jit(mapped, donate_argnums=0)
    return Runner(step, sharding.placer(over), sharding.splitter(over), over.size)


def mesh(
    make_step: MakeStep,
    devices: Devices | None = None,
    *,
    model: int = 1,
    fully_sharded: bool = False,
    min_size: int = MIN_SHARDED,
) -> Runner:
    """Runs one global step by `jax.jit`; the compiler splits it over a mesh.

    Args:
        make_step: As for `make_runner`.
        devices: Devices to use; all by default.
        model: Length of the mesh's model axis. Devices along it share examples, and
            every large array is cut along it, those of decoders and towers by heads and
            widths (`eegkd.train.partition`).
        fully_sharded: Cut every large array over the data axis too: parameters,
            optimiser, frozen variables and earlier stages take 1 / devices of the
            memory, and are gathered where they are used.
        min_size: Elements below which an array stays whole.
    """
    over = make_mesh(devices, model=model)
    axes = mesh_axes(model=model, fully_sharded=fully_sharded)
    rule = partition_rule(over, axes, min_size=min_size)
    step = make_step(None)

    def constrained(state, frozen, upstream, batch):
        # Models say where their tokens lie (`eegkd.ops.placing`).
        with jax.sharding.use_abstract_mesh(over.abstract_mesh):
            state, metrics = step(state, frozen, upstream, batch)
        return _constrain(state, over, rule), _constrain(metrics, over)

    return Runner(
        jax.jit(constrained, donate_argnums=0),
        sharding.placer(over, rule),
        sharding.splitter(over),
        over.size,
    )


RUNNERS: dict[str, Callable[..., Runner]] = {
    "single": single,
    "pmap": pmap,
    "shard_map": shard_map,
    "mesh": mesh,
}


def make_runner(
    name: str,
    make_step: MakeStep,
    devices: Devices | None = None,
    *,
    model: int = 1,
    fully_sharded: bool = False,
) -> Runner:
    """Makes the runner called `name`.

    Args:
        name: "single", "pmap", "shard_map", "mesh", or "auto": `mesh` where arrays are
            sharded, else `single` on one device and `shard_map` on several.
        make_step: `axis_name -> step`, such as
            `lambda axis: make_train_step(system, "student", tx, axis_name=axis)`.
        devices: Devices to use; all by default.
        model: Size of the model axis of `mesh`.
        fully_sharded: Option of `mesh`.

    Raises:
        InputError: If there is no such runner, or it cannot shard parameters.
    """
    sharded = model > 1 or fully_sharded
    if name == "auto":
        alone = len(devices or jax.devices()) == 1
        name = "mesh" if sharded else "single" if alone else "shard_map"
    if name not in RUNNERS:
        raise InputError(
            f"There is no runner {name!r}: use auto, {', '.join(RUNNERS)}."
        )
    if name == "mesh":
        return mesh(make_step, devices, model=model, fully_sharded=fully_sharded)
    if sharded:
        raise InputError(f"The runner {name} keeps parameters whole: use mesh.")
    return RUNNERS[name](make_step, devices)


def _constrain(tree: Any, over: Mesh, rule: sharding.Rule = sharding.replicated) -> Any:
    """Fixes the layout of a step's results to the one the next step takes."""

    def fix(keys: Any, x: Any) -> Any:
        spec = rule(sharding.path_of(keys), x.shape)
        return jax.lax.with_sharding_constraint(x, NamedSharding(over, spec))

    return jax.tree_util.tree_map_with_path(fix, tree)
