"""Tables of weights: where a tensor of a PyTorch model goes in a Flax one, and how."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eegkd.convert.safetensors import check_names

Path_ = tuple[str, ...]
Pairs = list[tuple[Path_, np.ndarray]]


class Weight(NamedTuple):
    """One tensor, or one a layer.

    Attributes:
        path: Where it goes.
        name: What it is called; with `{}` in place of a layer's number, the layers'
            tensors are stacked.
        shape: Its own.
        turn: Brings it into Flax's layout.
    """

    path: Path_
    name: str
    shape: tuple[int, ...]
    turn: Callable[[np.ndarray], np.ndarray] = np.asarray


def linear(path: Path_, name: str, out: int, inner: int, *, bias: bool = True) -> tuple:
    """Lists kernel and bias of a linear layer."""
    kernel = Weight((*path, "kernel"), f"{name}.weight", (out, inner), np.transpose)
    return (kernel, *(_bias(path, name, out) if bias else ()))


def norm(path: Path_, name: str, features: int) -> tuple:
    """Lists scale and bias of a normalisation."""
    scale = Weight((*path, "scale"), f"{name}.weight", (features,))
    return (scale, *_bias(path, name, features))


def time_conv(path: Path_, name: str, out: int, inner: int, taps: int) -> tuple:
    """Lists kernel and bias of a two-dimensional convolution with one row of taps."""
    kernel = Weight(
        (*path, "kernel"),
        f"{name}.weight",
        (out, inner, 1, taps),
        lambda a: a[:, :, 0].transpose(2, 1, 0),
    )
    return (kernel, *_bias(path, name, out))


def _bias(path: Path_, name: str, features: int) -> tuple[Weight]:
    return (Weight((*path, "bias"), f"{name}.bias", (features,)),)


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
        InputError: If one is missing or left over, or has another shape; one message
            lists every difference.
    """
    table = list(table)
    names = {weight: _names(weight, depth) for weight in table}
    wanted = {name: weight.shape for weight in table for name in names[weight]}
    check_names(source, tensors, wanted, model=model)

    def value(weight: Weight) -> np.ndarray:
        parts = [weight.turn(tensors[name]) for name in names[weight]]
        return np.stack(parts) if "{}" in weight.name else np.ascontiguousarray(*parts)

    return [(weight.path, value(weight)) for weight in table]


def _names(weight: Weight, depth: int) -> list[str]:
    layers = range(depth) if "{}" in weight.name else (0,)
    return [weight.name.format(i) for i in layers]


def count_layers(names: Iterable[str], prefix: str, default: int) -> int:
    """Counts the layers that names speak of: `prefix` and a number from 0."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = [int(match[1]) for name in names if (match := pattern.match(name))]
    return max(found) + 1 if found else default


def size_of(
    tensors: Mapping[str, np.ndarray], name: str, axis: int, default: int
) -> int:
    """Returns a size that a tensor tells; the default where it is not there."""
    array = tensors.get(name)
    return default if array is None or array.ndim <= axis else array.shape[axis]
