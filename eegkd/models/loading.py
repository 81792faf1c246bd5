"""Puts parameters on devices one tensor at a time, and takes them off again.

Each layer of a stack is written into an array that is on the devices already and is
given up to the write (donated), so that the host holds a few tensors besides the
parameters, never a checkpoint.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from eegkd.errors import InputError
from eegkd.typing import Array, PyTree

Path: TypeAlias = tuple[str, ...]
Shardings: TypeAlias = Callable[[Path, tuple[int, ...]], Sharding]


@runtime_checkable
class Lazy(Protocol):
    """A parameter whose values are read on demand; `LazyArray` is one."""

    @property
    def path(self) -> Path:
        """Path of the parameter."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, stacked layers first."""
        ...

    @property
    def dtype(self) -> str:
        """Type in the file."""
        ...

    @property
    def parts(self) -> tuple[Callable[[], np.ndarray], ...]:
        """Readers of one layer each, or one reader of everything."""
        ...

    @property
    def is_stack(self) -> bool:
        """True if there is one part per layer."""
        ...


def load_tree(
    arrays: Iterable[Lazy], *, dtype: Any = None, shardings: Shardings | None = None
) -> PyTree:
    """Reads parameters onto the devices, one tensor after another.

    Args:
        arrays: Parameters to read.
        dtype: Type of the parameters; None is the files', at least float32.
            Scalars never become narrower: there is nothing to save, and a temperature
            that is kept as its logarithm would change by a percent.
        shardings: Returns how a parameter of a path and shape is spread; None is the
            default device. Every process reads full tensors and keeps its part of each.

    Returns:
        The parameters, nested by their paths.

    Raises:
        InputError: If the type is no floating one.
    """
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"dtype={jnp.dtype(dtype)} holds no weights: take float32 or bfloat16."
        )
    return unflatten_dict(
        {array.path: _load(array, dtype, shardings) for array in arrays}
    )


def _load(array: Lazy, dtype: Any, shardings: Shardings | None) -> Array:
    sharding = None if shardings is None else shardings(array.path, array.shape)
    wide = jnp.promote_types(array.dtype, jnp.float32)
    wanted = jax.dtypes.canonicalize_dtype(dtype if dtype and array.shape else wide)
    if not array.is_stack:
        return _cast(wanted, sharding)(_put(array.parts[0](), sharding))
    stack = jnp.zeros(array.shape, wanted, device=sharding)
    for i, read in enumerate(array.parts):
        stack = _write(sharding)(stack, _put(read(), _of_layer(sharding)), i)
        # Or files are read faster than devices take them, and tensors pile up.
        stack.block_until_ready()
    return stack


def _put(part: np.ndarray, sharding: Sharding | None) -> Array:
    if sharding is None:
        return jax.device_put(part)
    return jax.make_array_from_callback(part.shape, sharding, lambda at: part[at])


def _of_layer(sharding: Sharding | None) -> Sharding | None:
    """Returns the sharding of a layer: that of the stack."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))


@functools.lru_cache(maxsize=64)
def _cast(dtype: Any, sharding: Sharding | None) -> Callable[[Array], Array]:
    return jax.jit(lambda part: part.astype(dtype), out_shardings=sharding)


@functools.lru_cache(maxsize=64)
def _write(sharding: Sharding | None) -> Callable[[Array, Array, int], Array]:
    def write(stack: Array, part: Array, i: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(
            stack, part.astype(stack.dtype), i, 0
        )

    return jax.jit(write, donate_argnums=0, out_shardings=sharding)


_take = jax.jit(lambda stack, i: stack[i])


def take_layer(stack: Array, i: int) -> Array:
    """Returns one layer of a stack, with one program for all layers."""
    return _take(stack, i)
