"""Costs of a traced program besides its operations: memory traffic, collectives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.ops.flops import add_up, flops_of

_PRODUCTS = ("dot_general", "conv_general_dilated")
_REDUCED = ("psum", "psum_invariant", "pmax", "pmin")
_GATHERED = ("all_gather", "all_gather_invariant")


class Costs(NamedTuple):
    """One call of a program on one device.

    Attributes:
        flops: Operations, as `count_flops` counts them.
        half_flops: Those of products whose operands have 16 bits.
        traffic: Bytes to and from the device's memory, an estimate: arguments and
            results once, operands and results of products, operands of reductions.
            Element-wise operations are taken as fused into those.
        reduced: Bytes that enter sums over devices.
        gathered: Bytes that this device gives to each of the others: what it puts
            into gathers over devices, and takes from their derivatives.
    """

    flops: int
    half_flops: int
    traffic: int
    reduced: int
    gathered: int


def count_costs(
    fn: Callable[..., Any], *args: Any, axis: tuple[str, int] | None = None
) -> Costs:
    """Counts the costs of one call; nothing is compiled or run.

    Args:
        fn: One device's view of a program, such as a whole training step.
        *args: Arguments; shapes and dtypes are enough.
        axis: Name and size of the device axis that its collectives reduce over.

    Raises:
        ValueError: If it has a while loop of unknown length.
    """
    axis_env = None if axis is None else [axis]
    jaxpr = jax.make_jaxpr(fn, axis_env=axis_env)(*args).jaxpr
    ends = sum(_bytes(var) for var in (*jaxpr.invars, *jaxpr.outvars))
    return Costs(
        flops=add_up(jaxpr, flops_of),
        half_flops=add_up(jaxpr, _half_flops),
        traffic=ends + add_up(jaxpr, _traffic),
        reduced=add_up(jaxpr, _reduced),
        gathered=add_up(jaxpr, _gathered),
    )


def _half_flops(eqn: Any) -> int:
    if eqn.primitive.name not in _PRODUCTS:
        return 0
    widths = [var.aval.dtype.itemsize for var in eqn.invars[:2]]
    return flops_of(eqn) if max(widths) <= 2 else 0


def _traffic(eqn: Any) -> int:
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return sum(_bytes(var) for var in (*eqn.invars, *eqn.outvars))
    if name.startswith(("reduce_", "arg", "cum")):
        return sum(_bytes(var) for var in eqn.invars if _is_float(var))
    return 0


def _reduced(eqn: Any) -> int:
    if eqn.primitive.name not in _REDUCED:
        return 0
    return sum(_bytes(var) for var in eqn.invars)


def _gathered(eqn: Any) -> int:
    name = eqn.primitive.name
    if name in _GATHERED:
        return sum(_bytes(var) for var in eqn.invars)
    if name == "reduce_scatter":
        return sum(_bytes(var) for var in eqn.outvars)
    return 0


def _is_float(var: Any) -> bool:
    dtype = getattr(var.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.floating))


def _bytes(var: Any) -> int:
    """Returns the size of a variable; keys and tokens have none that counts."""
    dtype = getattr(var.aval, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return 0
    return math.prod(var.aval.shape) * dtype.itemsize
