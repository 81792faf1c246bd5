"""Tables of weights: places and layouts of a PyTorch model's tensors in a Flax one."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.convert.safetensors import check_finite, check_names
from eegkd.errors import InputError

Path_ = tuple[str, ...]
Pairs = list[tuple[Path_, np.ndarray]]
_LISTED = 1_000
"""Layers whose missing tensors are listed by name."""


class Turn(NamedTuple):
    """Two views of one tensor.

    Attributes:
        there: Maps PyTorch's layout to Flax's.
        back: Maps Flax's layout to PyTorch's, in NumPy or another library.
    """

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[Any], Any]


AS_IT_IS = Turn(np.asarray, np.asarray)
TRANSPOSED = Turn(np.transpose, np.transpose)
IMAGE_KERNEL = Turn(
    lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
)
"""Kernels of two-dimensional convolutions: [out, in, h, w] and [h, w, in, out]."""
_TAPS = Turn(
    lambda a: a[:, :, 0].transpose(2, 1, 0), lambda a: a.transpose(2, 1, 0)[:, :, None]
)


class Weight(NamedTuple):
    """One tensor, or one per layer.

    Attributes:
        path: Path of the parameter in Flax.
        name: Name of the tensor; with `{}` in place of a layer's number, the layers'
            tensors are stacked.
        shape: Shape of the tensor.
        turn: Conversion between its layout and Flax's.
        depth: Number of layers, where the name has `{}`.
    """

    path: Path_
    name: str
    shape: tuple[int, ...]
    turn: Turn = AS_IT_IS
    depth: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, layer by layer."""
        return tuple(self.name.format(i) for i in range(self.depth or 1))

    @property
    def placed_shape(self) -> tuple[int, ...]:
        """Shape in Flax's layout, stacked layers first."""
        one = self.turn.there(np.broadcast_to(np.float32(0), self.shape)).shape
        return (self.depth, *one) if self.depth else one


class Family(NamedTuple):
    """Layout of models of one class in files of transformers.

    Attributes:
        table: Lists their tensors, from the fields of our config.
        config: Makes their `config.json`, from the same fields.
        rename: Maps any name that a tensor has had to the table's.
        in_memory: Maps the table's name to that in transformers' model.
    """

    table: Callable[[Mapping[str, Any]], list[Weight]]
    config: Callable[[Mapping[str, Any]], dict[str, Any]]
    rename: Callable[[str], str] = str
    in_memory: Callable[[str], str] = str


def linear(
    path: Path_, name: str, out: int, inner: int, *, bias: bool = True
) -> tuple[Weight, ...]:
    """Lists kernel and bias of a linear layer."""
    kernel = Weight((*path, "kernel"), f"{name}.weight", (out, inner), TRANSPOSED)
    return (kernel, *(_bias(path, name, out) if bias else ()))


def norm(path: Path_, name: str, features: int) -> tuple[Weight, ...]:
    """Lists scale and bias of a normalisation."""
    scale = Weight((*path, "scale"), f"{name}.weight", (features,))
    return (scale, *_bias(path, name, features))


def time_conv(
    path: Path_, name: str, out: int, inner: int, taps: int
) -> tuple[Weight, ...]:
    """Lists kernel and bias of a two-dimensional convolution with one row of taps."""
    kernel = Weight((*path, "kernel"), f"{name}.weight", (out, inner, 1, taps), _TAPS)
    return (kernel, *_bias(path, name, out))


def _bias(path: Path_, name: str, features: int) -> tuple[Weight]:
    return (Weight((*path, "bias"), f"{name}.bias", (features,)),)


def stacked(table: Iterable[Weight], depth: int) -> list[Weight]:
    """Sets the depth of rows whose names hold a layer placeholder."""
    return [row._replace(depth=depth) if "{}" in row.name else row for row in table]


def under(path: Path_, table: Iterable[Weight]) -> list[Weight]:
    """Prefixes the paths of a part of a model by the part's path."""
    return [row._replace(path=(*path, *row.path)) for row in table]


def shapes_of(
    source: str | Path, table: Iterable[Weight], num_stored: int, *, model: str
) -> dict[str, tuple[int, ...]]:
    """Lists the shapes of a table's tensors by their names.

    Args:
        source: Origin of the tensors, for the message.
        table: The tensors.
        num_stored: Number of tensors that the files hold.
        model: Origin of the table, for the message.

    Raises:
        InputError: If it has more than 1,000 layers, and more than the files have
            tensors, so that the names of a billion layers are not made.
    """
    table = list(table)
    deepest = max((row.depth for row in table), default=0)
    if deepest > max(num_stored, _LISTED):
        raise InputError(
            f"{source}: {deepest:,} layers by {model}, and {num_stored:,} tensors in "
            "all. Download both again."
        )
    return {name: row.shape for row in table for name in row.names}


def place(
    source: str | Path,
    tensors: Mapping[str, np.ndarray],
    table: Iterable[Weight],
    *,
    depth: int,
    model: str,
) -> Pairs:
    """Maps tensors to paths.

    Raises:
        InputError: If one is missing or left over, or has another shape (one message
            lists every difference), a value is not finite, or there are far more layers
            than tensors.
    """
    table = stacked(table, depth)
    wanted = shapes_of(source, table, len(tensors), model=model)
    check_names(source, tensors, wanted, model=model)
    for name in wanted:
        check_finite(source, name, tensors[name])

    def value(row: Weight) -> np.ndarray:
        parts = [row.turn.there(tensors[name]) for name in row.names]
        return np.stack(parts) if row.depth else np.ascontiguousarray(*parts)

    return [(row.path, value(row)) for row in table]


def count_layers(names: Iterable[str], prefix: str, default: int) -> int:
    """Counts the layers that names speak of: `prefix` and a number from 0."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = [int(match[1]) for name in names if (match := pattern.match(name))]
    return max(found) + 1 if found else default


def size_of(
    tensors: Mapping[str, np.ndarray], name: str, axis: int, default: int
) -> int:
    """Returns a size from a tensor's shape; the default if there is no such tensor."""
    array = tensors.get(name)
    return default if array is None or array.ndim <= axis else array.shape[axis]
