"""Example batches of a system, and its variables by shape alone.

Whatever needs the shapes of a batch (initialisation, plans, estimates, benchmarks,
exports, caches) reads them from `example_batch` alone.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.errors import InputError
from eegkd.systems import (
    SignalConfig,
    Stage,
    System,
    batch_length,
    init_stage,
    keep_all,
)
from eegkd.typing import Array, Batch, Key, PyTree, Variables

EXAMPLE_WINDOWS = 2
"""Windows per recording of the example of a stage whose scope is a recording."""


class StageShapes(NamedTuple):
    """Shapes and dtypes of one stage's variables, in training and after it."""

    trained: Variables
    finished: Variables


def _prepare(
    prepare: Callable[[Batch, frozenset[str]], Batch],
    stages: frozenset[str],
    who: str,
    batch: Batch,
) -> Batch:
    """Calls `prepare`, and checks that it keeps the number of examples."""
    num, whole = batch_length(batch), prepare(batch, stages)
    for path, array in jax.tree_util.tree_leaves_with_path(dict(whole)):
        if np.shape(array)[:1] != (num,):
            name = ".".join(str(key.key) for key in path)
            raise InputError(
                f"{who} returns {name} of shape {list(np.shape(array))} for {num} "
                f"examples: its first axis has to be {num}."
            )
    return whole


def prepare_fn(
    system: System, stages: Iterable[str] | None = None
) -> Callable[[Batch], Batch] | None:
    """Returns `prepare` for the stages that will run; None if it adds nothing."""
    if system.prepare is keep_all:
        return None
    names = [stage.name for stage in system.stages] if stages is None else stages
    # Workers unpickle it: it holds no more of the system than it needs.
    return functools.partial(
        _prepare, system.prepare, frozenset(names), f"The prepare of {system.name}"
    )


def example_batch(
    system: System,
    signal: SignalConfig,
    size: int = 1,
    stages: Iterable[str] | None = None,
) -> Batch:
    """Returns a batch of zeros like a real one for some stages; None is all."""
    row = {name: np.asarray(value) for name, value in system.row(signal).items()}
    if system.measure is not None:
        (numbers,) = system.measure(row["signal"][None], signal)
        row["measures"] = np.asarray(numbers, np.float32)
    batch = {name: np.repeat(value[None], size, axis=0) for name, value in row.items()}
    prepare = prepare_fn(system, stages)
    return prepare(batch) if prepare else batch


def as_recordings(batch: Batch, num: int = EXAMPLE_WINDOWS) -> Batch:
    """Returns a batch of recordings of `num` windows each, made of a batch of windows.

    `mask bool[r, n]` is True where there is a window.
    """
    rows = jax.tree.map(
        lambda x: np.repeat(np.asarray(x)[:, None], num, axis=1), dict(batch)
    )
    return rows | {"mask": np.ones((batch_length(batch), num), bool)}


def stage_example(
    system: System, stage: Stage, signal: SignalConfig, size: int = 1
) -> Batch:
    """Returns the example batch of one stage, whatever its scope."""
    batch = example_batch(system, signal, size)
    return as_recordings(batch) if stage.scope == "recording" else batch


def batch_shapes(system: System, signal: SignalConfig, size: int = 1) -> dict[str, Any]:
    """Returns the shapes and dtypes of `example_batch`."""
    return shapes_of(example_batch(system, signal, size))


def shapes_of(tree: PyTree) -> Any:
    """Returns the shapes and dtypes of a tree of arrays."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), tree
    )


def stage_shapes(system: System, signal: SignalConfig) -> dict[str, StageShapes]:
    """Traces the start and the end of every stage, in order."""
    found: dict[str, StageShapes] = {}
    for stage in system.stages:
        earlier = {name: shapes.finished for name, shapes in found.items()}
        batch = shapes_of(stage_example(system, stage, signal))
        trained = init_shapes(stage, batch, earlier)
        finish = stage.finish or (lambda variables: variables)
        found[stage.name] = StageShapes(trained, jax.eval_shape(finish, trained))
    return found


def start_stage(
    system: System,
    stage: Stage,
    signal: SignalConfig,
    upstream: Mapping[str, Variables],
    *,
    seed: int = 0,
) -> Variables:
    """Initialises one stage, with its loaded weights if it has any."""
    batch = stage_example(system, stage, signal)
    loaded = stage.load.read() if stage.load else None
    run = jax.jit(functools.partial(init_stage, stage))
    return run(init_key(seed), batch, dict(upstream), loaded)


def init_shapes(
    stage: Stage, batch: Batch, upstream: Mapping[str, Variables]
) -> Variables:
    """Traces the initialisation of one stage; loaded weights are shapes alone."""
    loaded = stage.load.shapes() if stage.load else None
    return jax.eval_shape(
        functools.partial(init_stage, stage), init_key(0), batch, dict(upstream), loaded
    )


def num_bytes(tree: Any) -> int:
    """Counts the bytes of all arrays of a tree."""
    sizes = (
        math.prod(x.shape) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
    return sum(sizes)


def init_key(seed: int) -> Key[Array, ""]:
    """Makes the key of an initialisation.

    Its generator compiles to one operation per parameter; the default one, unrolled for
    every parameter, would take longer to compile than the first epochs take to run.
    """
    return jax.random.key(seed, impl="unsafe_rbg")
