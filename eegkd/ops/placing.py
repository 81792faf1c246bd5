"""Placement of a program's arrays on a mesh; without a mesh, nothing.

The compiler places intermediate arrays by the arguments. That is ambiguous where
examples and weights are both cut along the data axis (fully sharded): it may leave the
weights where they are and move the tokens of all examples instead, which costs more and
takes the memory of the whole batch on every device. A constraint on the tokens between
layers and before the head decides all the rest.
"""

import jax
from jax.sharding import AxisType, PartitionSpec, get_abstract_mesh

from eegkd.typing import Array

DATA_AXIS, MODEL_AXIS = "data", "model"


def split_batch(x: Array) -> Array:
    """Shards the first axis of `x` over the data axis."""
    return _place(x, (DATA_AXIS, *[None] * (x.ndim - 1)))


def gather_columns(kernel: Array) -> Array:
    """Gathers a kernel `[in, out]` on each device, but for a cut over `out`.

    That cut, along the model axis, stays. Before a loop that uses the kernel again and
    again, it is then fetched once.
    """
    return _place(kernel, (None, MODEL_AXIS))


def _place(x: Array, axes: tuple[str | None, ...]) -> Array:
    """Constrains `x`, where a runner has put a mesh around and the axes divide."""
    mesh = get_abstract_mesh()
    names = [name for name in axes if name is not None]
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if any(types.get(name) != AxisType.Auto for name in names):
        return x
    sizes = zip(x.shape, axes, strict=True)
    if any(name and size % mesh.shape[name] for size, name in sizes):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))
