"""The exported graph: a function of the signal alone, with its weights inside."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal

from eegkd.systems import System, predict_fn
from eegkd.train.weights import named_arrays
from eegkd.typing import Array, Variables

BATCH = "batch"
OUTPUT = "probabilities"
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


class Graph(NamedTuple):
    """A finished stage as a function of its inputs.

    Attributes:
        apply: `(variables, *inputs) -> probabilities [b, k]`; a batch of any size.
        variables: Finished variables; those that prediction does not read are None.
        inputs: Shapes and dtypes of one example, in the order of the arguments.
    """

    apply: Callable[..., Array]
    variables: Variables
    inputs: Mapping[str, jax.ShapeDtypeStruct]

    def fn(self, *arrays: Array) -> Array:
        """Computes probabilities; the weights are constants inside."""
        # NumPy arrays would be sliced or scaled now, and the results stored instead.
        variables = jax.tree.map(jnp.asarray, self.variables)
        return self.apply(variables, *arrays)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Arrays that the function holds, by name."""
        return named_arrays(self.variables)


def make_graph(
    system: System,
    stage: str,
    variables: Variables,
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    *,
    standardise: Callable[[Array], Array] | None = None,
) -> Graph:
    """Makes the graph of a stage's prediction from its inputs alone.

    Args:
        system: System of the stage.
        stage: Name of the stage.
        variables: Finished variables; those that prediction does not read are None.
        inputs: Shapes of one example, by the names in `system.inputs`.
        standardise: Applied to the signal first, where training did so.
    """
    names, predict = system.inputs, predict_fn(system, stage)

    def apply(variables: Variables, *arrays: Array) -> Array:
        batch = dict(zip(names, arrays, strict=True))
        if standardise is not None:
            batch["signal"] = standardise(batch["signal"])
        return predict(variables, batch)

    return Graph(apply, variables, {name: inputs[name] for name in names})


def symbolic_inputs(graph: Graph) -> list[jax.ShapeDtypeStruct]:
    """Returns the inputs' shapes with a batch of any size in front."""
    (batch,) = jax.export.symbolic_shape(BATCH)
    return [
        jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for x in graph.inputs.values()
    ]


def plain_operations(
    fn: Callable[..., Array], inputs: Sequence[jax.ShapeDtypeStruct]
) -> Callable[..., Array]:
    """Returns `fn` with calls inlined, in the form for any platform.

    Converters know neither a choice by platform nor derivative rules. Padding is
    written as a concatenation, which they also convert for batches of any size.

    Args:
        fn: A function of arrays that returns one.
        inputs: Shapes of the arguments, possibly symbolic.
    """
    closed = jax.make_jaxpr(fn)(*inputs)
    # As JAX's own arrays, they are held once, however often they are read.
    consts = [jnp.asarray(const) for const in closed.consts]

    def plain(*arrays: Array) -> Array:
        return _run(closed.jaxpr, consts, arrays)[0]

    return plain


def _run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else known[var]

    for eqn in jaxpr.eqns:
        values = [read(var) for var in eqn.invars]
        known.update(zip(eqn.outvars, _run_equation(eqn, values), strict=True))
    return [read(var) for var in jaxpr.outvars]


def _run_equation(eqn: Any, values: Sequence[Any]) -> list[Any]:
    name = eqn.primitive.name
    if name == "platform_index":
        return [len(eqn.params["platforms"]) - 1]  # The last one is the default.
    if name == "cond" and isinstance(values[0], int):
        branch = eqn.params["branches"][values[0]]
        return _run(branch.jaxpr, branch.consts, values[1:])
    if name in _CALLS:
        inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
        return _run(inner.jaxpr, inner.consts, values)
    config = eqn.params.get("padding_config", ())
    if name == "pad" and not any(inner for _, _, inner in config):
        return [_pad(values[0], values[1], config)]
    out = eqn.primitive.bind(*values, **eqn.params)
    return out if eqn.primitive.multiple_results else [out]


def _pad(x: Array, value: Array, config: Sequence[tuple[int, int, int]]) -> Array:
    for axis, (before, after, _) in enumerate(config):
        stop = x.shape[axis] - max(0, -after)
        if before < 0 or after < 0:
            x = jax.lax.slice_in_dim(x, max(0, -before), stop, axis=axis)
        parts = [x]
        if before > 0:
            parts.insert(0, _filled(value, x, axis, before))
        if after > 0:
            parts.append(_filled(value, x, axis, after))
        x = jax.lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _filled(value: Array, like: Array, axis: int, size: int) -> Array:
    shape = (*like.shape[:axis], size, *like.shape[axis + 1 :])
    return jax.lax.broadcast(value, shape)
