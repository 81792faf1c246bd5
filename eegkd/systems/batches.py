"""The variables of a system by shape alone: nothing is computed or kept."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eegkd.systems import SignalConfig, System
from eegkd.typing import Array, Key, Variables


class StageShapes(NamedTuple):
    """Shapes and dtypes of one stage's variables, in training and after it."""

    trained: Variables
    finished: Variables


def example_shapes(signal: SignalConfig, size: int = 1) -> dict[str, object]:
    """Returns the shapes of a batch of `size` windows with labels."""
    shape = (size, signal.n_chans, signal.n_times)
    return {
        "signal": jax.ShapeDtypeStruct(shape, jnp.float32),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


def stage_shapes(system: System, signal: SignalConfig) -> dict[str, StageShapes]:
    """Traces the start and the end of every stage, in order."""
    found: dict[str, StageShapes] = {}
    batch = example_shapes(signal)
    for stage in system.stages:
        earlier = {name: shapes.finished for name, shapes in found.items()}
        trained = jax.eval_shape(
            lambda batch, earlier, stage=stage: stage.init(
                jax.random.key(0), batch, earlier
            ),
            batch,
            earlier,
        )
        finish = stage.finish or (lambda variables: variables)
        found[stage.name] = StageShapes(trained, jax.eval_shape(finish, trained))
    return found


def num_bytes(tree: Any) -> int:
    """Adds up the bytes of all arrays of a tree."""
    sizes = (
        math.prod(x.shape) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    return sum(sizes)


def init_key(seed: int) -> Key[Array, ""]:
    """Makes the key of an initialisation.

    Its generator compiles to one operation a parameter; the default one, unrolled for
    every parameter, would take longer to compile than the first epochs take to run.
    """
    return jax.random.key(seed, impl="unsafe_rbg")
