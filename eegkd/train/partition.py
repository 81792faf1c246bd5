"""Division of arrays over a mesh, by path: one table for decoders and towers.

A mesh has the axes [data, model]. Fully sharded, arrays are cut along `data` too and
gathered where they are used; tensor-parallel, along `model`: devices of one row share
examples, each has some heads and some of the feed-forward's width, and one sum joins
what they make of a block. Both together cut an array twice.

The table holds for parameters, frozen variables, adapters and the optimiser's moments
alike, because all of them keep their parameters' paths (at the end of their own).
"""

import fnmatch
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eegkd.train.sharding import (
    AXIS,
    MIN_SHARDED,
    MODEL,
    Rule,
    is_key,
    path_of,
    shard_rule,
)

Axes = tuple[str | tuple[str, ...] | None, ...]
_BOTH = (MODEL, AXIS)
_STACK = "layers"
# What comes out of the first is split over heads or width, and so goes into the second.
_INTO = ("query", "key", "value", "gate", "up")
_OUT_OF = ("out", "down", "attention_out")
_TABLES = ("embed", "token", "word")
_logger = logging.getLogger(__name__)

TABLE: tuple[tuple[str, Axes], ...] = (
    *((f"{_STACK}/{name}/kernel", (AXIS, MODEL)) for name in _INTO),
    *((f"{_STACK}/{name}/bias", (_BOTH,)) for name in _INTO),
    *((f"{_STACK}/{name}/lora_down", (AXIS, None)) for name in _INTO),
    *((f"{_STACK}/{name}/lora_up", (None, _BOTH)) for name in _INTO),
    *((f"{_STACK}/{name}/kernel", (MODEL, AXIS)) for name in _OUT_OF),
    *((f"{_STACK}/{name}/bias", (AXIS,)) for name in _OUT_OF),
    *((f"{_STACK}/{name}/lora_down", (_BOTH, None)) for name in _OUT_OF),
    *((f"{_STACK}/{name}/lora_up", (None, AXIS)) for name in _OUT_OF),
    ("*norm*/scale", (None,)),
    ("*norm*/bias", (None,)),
    *((f"{name}/embedding", (MODEL, AXIS)) for name in _TABLES),
    ("position/embedding", (None, _BOTH)),
    ("patch/kernel", (None, None, None, _BOTH)),
    ("lm_head/kernel", (AXIS, MODEL)),
    ("linear_1/kernel", (AXIS, MODEL)),
    ("linear_1/bias", (_BOTH,)),
    ("linear_2/kernel", (MODEL, AXIS)),
    ("linear_2/bias", (AXIS,)),
)
"""Path patterns, matched at a path's end, and the mesh axes of an array's last axes.

Axes before those are the stack of scanned layers, which is never cut: every step of the
scan would have to fetch its layer from one device.
"""


class Place(NamedTuple):
    """Place of an array, and its reason.

    Attributes:
        spec: Mesh axes by array axis.
        reason: "table"; "small", kept whole; else why the table does not decide.
    """

    spec: PartitionSpec
    reason: str


def locate(
    mesh: Any, axes: tuple[str, ...], *, min_size: int = MIN_SHARDED
) -> Callable[[str, tuple[int, ...]], Place]:
    """Makes `(path, shape) -> Place` by the table.

    Where the table has no such path, or an axis does not divide, the largest axis that
    does is cut (`shard_rule`), but for the stack of layers. Key and value heads fewer
    than the model axis are cut inside a head: right, and slower.

    Args:
        mesh: A mesh, or an `AbstractMesh` to plan for devices that are not there.
        axes: Axes to cut along: () keeps all whole, ("data",) is fully sharded,
            ("model",) tensor-parallel, ("model", "data") both.
        min_size: Elements below which an array stays whole.
    """
    sizes: Mapping[str, int] = {axis: mesh.shape[axis] for axis in axes}
    by_shape = shard_rule(mesh, axes, min_size=min_size)

    def place(path: str, shape: tuple[int, ...]) -> Place:
        if not axes:
            return Place(PartitionSpec(), "table")
        if math.prod(shape) < min_size:
            return Place(PartitionSpec(), "small")
        cuts = _find(path, len(shape))
        stacked = int(_STACK in path.split("/")[:-1])
        if cuts is None:
            return Place(_after(stacked, by_shape(shape[stacked:])), "unknown path")
        first = len(shape) - len(cuts)
        kept = [_kept(cut, axes) for cut in cuts]
        for size, cut in zip(shape[first:], kept, strict=True):
            num = math.prod(sizes[axis] for axis in cut)
            if size % num:
                spec = _after(first, by_shape(shape[first:]))
                return Place(spec, f"{size} is no multiple of {num}")
        entries = [cut if len(cut) > 1 else (cut or (None,))[0] for cut in kept]
        return Place(_after(first, PartitionSpec(*entries)), "table")

    return place


def partition_rule(
    mesh: Any, axes: tuple[str, ...], *, min_size: int = MIN_SHARDED
) -> Rule:
    """Makes `(path, shape) -> PartitionSpec`; arguments as `locate`'s."""
    place = locate(mesh, axes, min_size=min_size)

    def rule(path: str, shape: tuple[int, ...]) -> PartitionSpec:
        found = place(path, shape)
        if found.reason not in ("table", "small"):
            _logger.debug("%s %s: %s, %s", path, shape, found.reason, found.spec)
        return found.spec

    return rule


def shardings(
    mesh: Mesh, rule: Rule
) -> Callable[[tuple[str, ...], tuple[int, ...]], NamedSharding]:
    """Makes `(path, shape) -> sharding`, to load weights straight to their places."""
    return lambda path, shape: NamedSharding(mesh, rule("/".join(path), shape))


def mesh_axes(*, model: int, fully_sharded: bool) -> tuple[str, ...]:
    """Returns the axes along which arrays are cut, the model axis first."""
    return ((MODEL,) if model > 1 else ()) + ((AXIS,) if fully_sharded else ())


def places(
    tree: Any, place: Callable[[str, tuple[int, ...]], Place]
) -> Iterator[tuple[str, Any, Place]]:
    """Lists `(path, array or its shape, place)` of a tree, but for random keys."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_key(leaf):
            path = path_of(keys)
            yield path, leaf, place(path, leaf.shape)


def bytes_a_device(
    tree: Any, mesh: Any, place: Callable[[str, tuple[int, ...]], Place]
) -> int:
    """Counts the bytes of a tree that one device of the mesh holds."""
    total = 0
    for _, leaf, found in places(tree, place):
        named = [axis for cut in found.spec for axis in _kept(cut, mesh.shape)]
        num = math.prod(mesh.shape[axis] for axis in named)
        total += math.prod(leaf.shape) * leaf.dtype.itemsize // num
    return total


def _find(path: str, ndim: int) -> Axes | None:
    """Returns the first line of the table that ends a path and fits its axes."""
    for pattern, cuts in TABLE:
        if len(cuts) <= ndim and fnmatch.fnmatchcase(f"/{path}", f"*/{pattern}"):
            return cuts
    return None


def _kept(cut: Any, axes: Any) -> tuple[str, ...]:
    """Returns those of an array axis's mesh axes that are in use."""
    named = cut if isinstance(cut, tuple) else (cut,)
    return tuple(axis for axis in named if axis in axes)


def _after(first: int, spec: PartitionSpec) -> PartitionSpec:
    """Prefixes `spec` by `first` whole axes."""
    return PartitionSpec(*[None] * first, *spec) if len(spec) else spec
