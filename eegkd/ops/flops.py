"""Counts floating-point operations in a traced program.

XLA's own count takes the body of a scan once; this one takes it once per step.
`jax.experimental.roofline` (jax 0.10) does as XLA: 12 scanned products are one, and of
a rematerialised pass it counts two thirds.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_FREE = {
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "dynamic_slice",
    "dynamic_update_slice",
    "gather",
    "iota",
    "pad",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
}


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
    """Counts the operations of one call; nothing is compiled or run.

    A multiplication and an addition are two; an element of any other floating-point
    result is one, of a reduction one for each input. Integers and moves are free. The
    body of a scan counts once per step, and of several branches the largest.

    Args:
        fn: A function of arrays, such as a forward pass or a whole training step.
        *args: Arguments; shapes and dtypes (`jax.ShapeDtypeStruct`) are enough.

    Raises:
        ValueError: If it has a while loop of unknown length.
    """
    return add_up(jax.make_jaxpr(fn)(*args).jaxpr, flops_of)


def add_up(jaxpr: Any, cost: Callable[[Any], int]) -> int:
    """Sums a cost over the operations of a program, by the rules of `count_flops`.

    Args:
        jaxpr: The program.
        cost: Cost of one equation that holds no program of its own.
    """
    return sum(_add_up_equation(eqn, cost) for eqn in jaxpr.eqns)


def flops_of(eqn: Any) -> int:
    """Counts the operations of one equation that holds no program of its own."""
    name = eqn.primitive.name
    if name == "dot_general":
        return _dot(eqn)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    return _elementwise(eqn)


def _add_up_equation(eqn: Any, cost: Callable[[Any], int]) -> int:
    name = eqn.primitive.name
    inner = [add_up(jaxpr, cost) for jaxpr in _inner_jaxprs(eqn)]
    if name == "scan":
        return eqn.params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    if name == "while":
        if sum(inner) > 0:
            raise ValueError(
                "A while loop of unknown length has no count; use lax.scan or "
                "lax.fori_loop with a fixed number of steps."
            )
        return 0
    if inner:
        return sum(inner)
    return cost(eqn)


def _inner_jaxprs(eqn: Any) -> list[Any]:
    """Finds the programs of a call; the rules of a custom derivative are none."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, core.Jaxpr):
                found.append(item)
    return found


def _dot(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    depth = math.prod(left[axis] for axis in contracted)
    return 2 * depth * math.prod(eqn.outvars[0].aval.shape)


def _convolution(eqn: Any) -> int:
    """Counts the products of real elements; those with padding or holes are none."""
    params = eqn.params
    numbers = params["dimension_numbers"]
    image, kernel = (var.aval.shape for var in eqn.invars[:2])
    out = eqn.outvars[0].aval.shape
    pairs = 1
    for axis, (before, _) in enumerate(params["padding"]):
        size = image[numbers.lhs_spec[2 + axis]]
        taps = kernel[numbers.rhs_spec[2 + axis]]
        length = out[numbers.out_spec[2 + axis]]
        stride = params["window_strides"][axis]
        holes, spread = params["lhs_dilation"][axis], params["rhs_dilation"][axis]
        pairs *= sum(
            1
            for step in range(length)
            for tap in range(taps)
            if (at := step * stride + tap * spread - before) % holes == 0
            and 0 <= at < holes * (size - 1) + 1
        )
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    inputs = kernel[numbers.rhs_spec[1]]
    return 2 * pairs * batch * features * inputs // params["batch_group_count"]


def _elementwise(eqn: Any) -> int:
    name = eqn.primitive.name
    if name in _FREE or not eqn.outvars:
        return 0
    var = eqn.invars[0] if name.startswith(("reduce_", "arg")) else eqn.outvars[0]
    shape = getattr(var.aval, "shape", ())
    dtype = getattr(var.aval, "dtype", None)
    is_float = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    return math.prod(shape) if is_float else 0
