"""Placement of arrays: over devices, over processes, and back on the host."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eegkd.errors import InputError
from eegkd.ops.placing import DATA_AXIS, MODEL_AXIS
from eegkd.typing import Batch

AXIS, MODEL = DATA_AXIS, MODEL_AXIS
MIN_SHARDED = 4096
Devices = Sequence[Any]
ShapeRule = Callable[[tuple[int, ...]], PartitionSpec]
Rule = Callable[[str, tuple[int, ...]], PartitionSpec]
"""`(path, shape) -> PartitionSpec` of an array; a path is "params/head/kernel"."""


def pick_devices(num: int = 0) -> list[Any]:
    """Chooses `num` devices, as many of every process; 0 takes all.

    Returns:
        Devices in the order of processes, so that each has a block of every batch.

    Raises:
        InputError: If there are fewer, or processes would get unequal numbers.
    """
    every = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    processes = jax.process_count()
    if num % processes:
        raise InputError(
            f"--devices {num} over {processes} processes: use a multiple of {processes}"
            " (it counts the devices of all processes)."
        )
    each = num // processes or len(every)
    chosen: list[Any] = []
    for index in range(processes):
        mine = [d for d in every if d.process_index == index]
        if num and len(mine) < each:
            raise InputError(
                f"--devices {num} asks for {each} in process {index}, which has "
                f"{len(mine)}: use --devices {len(every)}, or 0 for all."
            )
        chosen += mine[:each]
    return chosen


def make_mesh(devices: Devices | None = None, *, model: int = 1) -> Mesh:
    """Arranges devices as [data, model].

    Raises:
        InputError: If the model axis does not divide the devices of a process.
    """
    every = list(devices or pick_devices())
    local = sum(d.process_index == jax.process_index() for d in every)
    if model < 1 or local % model:
        raise InputError(
            f"A model axis of {model} does not divide the {local} devices of a process."
        )
    return Mesh(np.array(every).reshape(-1, model), (AXIS, MODEL))


def shard_rule(
    mesh: Mesh, axes: tuple[str, ...], *, min_size: int = MIN_SHARDED
) -> ShapeRule:
    """Makes `shape -> PartitionSpec`: the largest axis that divides, over `axes`.

    Where no axis divides by all of them, the first of `axes` that some axis divides by
    is used alone. Arrays of fewer than `min_size` elements stay whole: to gather them
    costs more than to keep them.
    """
    groups = [axes, *((axis,) for axis in axes if len(axes) > 1)] if axes else []

    def rule(shape: tuple[int, ...]) -> PartitionSpec:
        if math.prod(shape) < min_size:
            return PartitionSpec()
        for group in groups:
            num = math.prod(mesh.shape[axis] for axis in group)
            fits = [i for i, size in enumerate(shape) if size and size % num == 0]
            if fits:
                largest = max(fits, key=lambda i: shape[i])
                return PartitionSpec(*[None] * largest, group)
        return PartitionSpec()

    return rule


def replicated(path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """Replicates every array."""
    del path, shape
    return PartitionSpec()


def placer(mesh: Mesh, rule: Rule = replicated) -> Callable[[Any], Any]:
    """Makes `tree -> tree` with every array on the mesh as `rule` says.

    All processes hand in the same values; each keeps its devices' parts. A shape alone
    (`jax.ShapeDtypeStruct`) is given a sharding, so that a step can be lowered for
    arrays that would not fit here.
    """

    def place(keys: Any, x: Any) -> Any:
        spec = PartitionSpec() if is_key(x) else rule(path_of(keys), np.shape(x))
        sharding = NamedSharding(mesh, spec)
        if isinstance(x, jax.ShapeDtypeStruct):
            return x.update(sharding=sharding)
        local = not isinstance(x, jax.Array) or x.is_fully_addressable
        if sharding.is_fully_addressable or not local:
            return jax.device_put(x, sharding)
        if is_key(x):
            bits = _share(np.asarray(jax.random.key_data(x)), sharding)
            return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(x))
        return _share(np.asarray(x), sharding)

    return lambda tree: jax.tree_util.tree_map_with_path(place, tree)


def path_of(keys: Any) -> str:
    """Formats the path of an array in its tree: "params/layers/query/kernel"."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def splitter(mesh: Mesh) -> Callable[[Batch], Any]:
    """Makes `batch -> batch` split over the mesh's data axis.

    Every process hands in its own part of the global batch.
    """
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    local = mesh.local_mesh.shape[AXIS]

    def put(batch: Batch) -> Any:
        batch_size(batch, local)
        leaves = jax.tree.leaves(batch)
        if all(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return jax.tree.map(lambda x: x.update(sharding=sharding), batch)
        if sharding.is_fully_addressable:
            return jax.device_put(batch, sharding)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
            batch,
        )

    return put


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


def on_one_device(tree: Any) -> Any:
    """Returns this process's first copy of replicated arrays; shares their memory.

    A tree with an array that is sharded stays where it is, because it may not fit; with
    several processes it comes to the host.
    """
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    if not all(x.is_fully_replicated for x in leaves):
        return tree if jax.process_count() == 1 else fetch(tree)
    return jax.tree.map(
        lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree
    )


def fetch(tree: Any) -> Any:
    """Fetches whole arrays to every process's host, sharded ones one at a time."""

    def one(x: Any) -> Any:
        if is_key(x):
            return x.addressable_data(0)
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return jax.device_get(x)
        if not x.is_fully_replicated:
            whole = NamedSharding(x.sharding.mesh, PartitionSpec())  # type: ignore
            x = jax.device_put(x, whole)
        return jax.device_get(x.addressable_data(0))

    return jax.tree.map(one, tree)


def _share(host: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Places this process's parts of an array that all processes hold."""
    return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])


def is_key(x: Any) -> bool:
    """Returns whether an array is a typed random key."""
    typed = isinstance(x, jax.Array | jax.ShapeDtypeStruct)
    return typed and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
