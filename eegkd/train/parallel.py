"""Runners: how one device's step is spread over devices.

The step says what is reduced (`axis_name`); a runner says where it runs. All of them
give the numbers of a single device, up to rounding and to the dropout of each device.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eegkd.errors import InputError
from eegkd.train.step import Step
from eegkd.typing import Batch

AXIS = "data"
Devices = Sequence[Any]
MakeStep = Callable[[str | None], Step]


class Runner(NamedTuple):
    """A compiled step, and how its arguments are laid out.

    Attributes:
        step: `(state, frozen, upstream, batch) -> (state, metrics)`; donates `state`.
        place: Puts a state, frozen variables or upstream on every device.
        put: Puts a host batch on the devices, split along its first axis.
        num_devices: Over how many devices.
    """

    step: Step
    place: Callable[[Any], Any]
    put: Callable[[Batch], Any]
    num_devices: int


def single(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs on one device: the first of `devices`."""
    device = (devices or jax.devices())[0]
    place = lambda tree: jax.device_put(tree, device)

    def put(batch: Batch) -> Any:
        batch_size(batch, 1)
        return place(batch)

    return Runner(jax.jit(make_step(None), donate_argnums=0), place, put, 1)


def pmap(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs by `jax.pmap`: the batch arrives as [devices, b / devices, ...]."""
    mesh = _mesh(devices)
    num = mesh.size
    step = jax.pmap(
        make_step(AXIS),
        AXIS,
        in_axes=(None, None, None, 0),
        out_axes=None,  # type: ignore[arg-type]
        devices=list(mesh.devices.flat),
        donate_argnums=0,
    )

    def put(batch: Batch) -> Any:
        size = batch_size(batch, num)
        cut = jax.tree.map(
            lambda x: np.reshape(x, (num, size // num, *np.shape(x)[1:])), batch
        )
        return jax.device_put(cut, NamedSharding(mesh, PartitionSpec(AXIS)))

    return Runner(step, _replicate(mesh), put, num)


def shard_map(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs by `jax.shard_map` under `jax.jit`: the default on several devices."""
    mesh = _mesh(devices)
    spec = PartitionSpec()
    # With check_vma, gradients of replicated parameters arrive summed over devices.
    mapped = jax.shard_map(
        make_step(AXIS),
        mesh=mesh,
        in_specs=(spec, spec, spec, PartitionSpec(AXIS)),
        out_specs=spec,
        check_vma=False,
    )
    step = jax.jit(mapped, donate_argnums=0)
    return Runner(step, _replicate(mesh), _split(mesh), mesh.size)


def mesh(make_step: MakeStep, devices: Devices | None = None) -> Runner:
    """Runs one global step by `jax.jit`; the compiler splits it over the batch."""
    over = _mesh(devices)
    whole = NamedSharding(over, PartitionSpec())
    step = jax.jit(make_step(None), out_shardings=whole, donate_argnums=0)
    return Runner(step, _replicate(over), _split(over), over.size)


RUNNERS = {"single": single, "pmap": pmap, "shard_map": shard_map, "mesh": mesh}


def make_runner(
    name: str, make_step: MakeStep, devices: Devices | None = None
) -> Runner:
    """Makes the runner called `name`.

    Args:
        name: "single", "pmap", "shard_map", "mesh", or "auto": `single` on one device
            and `shard_map` on several.
        make_step: `axis_name -> step`, such as
            `lambda axis: make_train_step(system, "student", tx, axis_name=axis)`.
        devices: Which to use; all by default.

    Raises:
        InputError: If there is no such runner.
    """
    if name == "auto":
        name = "single" if len(devices or jax.devices()) == 1 else "shard_map"
    if name not in RUNNERS:
        raise InputError(
            f"There is no runner {name!r}: use auto, {', '.join(RUNNERS)}."
        )
    return RUNNERS[name](make_step, devices)


def batch_size(batch: Batch, num_devices: int) -> int:
    """Returns the common first length of a batch's arrays.

    Raises:
        ValueError: If the arrays differ in it.
        InputError: If it is no multiple of the number of devices.
    """
    sizes = {np.shape(x)[:1] for x in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"Arrays of one batch have first axes {sorted(sizes)}.")
    ((size,),) = sizes
    if size % num_devices:
        raise InputError(
            f"A batch of {size} cannot be split over {num_devices} devices: set "
            f"train.batch_size to a multiple of {num_devices}."
        )
    return size


def _mesh(devices: Devices | None) -> Mesh:
    return Mesh(np.array(devices or jax.devices()), (AXIS,))


def _replicate(over: Mesh) -> Callable[[Any], Any]:
    sharding = NamedSharding(over, PartitionSpec())
    return lambda tree: jax.device_put(tree, sharding)


def _split(over: Mesh) -> Callable[[Batch], Any]:
    sharding = NamedSharding(over, PartitionSpec(AXIS))

    def put(batch: Batch) -> Any:
        batch_size(batch, over.size)
        return jax.device_put(batch, sharding)

    return put
