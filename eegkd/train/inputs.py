"""Inputs of a training step: keys, earlier stages' tensors, the labelled mask.

The same functions, run over batches, fill a teacher cache.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eegkd.errors import InputError
from eegkd.systems import Stage, System, batch_length, get_stage, upstream_inputs
from eegkd.train.state import TrainState
from eegkd.typing import Array, Batch, StepKeys, Tensors, Variables


def step_keys(state: TrainState, axis_name: str | None) -> StepKeys:
    """Derives the step's keys: its number folded in, then the device's index."""
    shared, local = jax.random.split(jax.random.fold_in(state.key, state.step))
    if axis_name is not None:
        local = jax.random.fold_in(local, jax.lax.axis_index(axis_name))
    return StepKeys(shared, local)


def upstream_tensors(
    system: System, stage: Stage, upstream: Mapping[str, Variables], batch: Batch
) -> dict[str, Tensors]:
    """Reads or runs the earlier stages that `stage` reads, and stops them.

    Returns:
        By stage name, the declared tensors alone.
    """
    cache = batch.get("cache", {})
    position = [other.name for other in system.stages].index(stage.name)
    wanted = list(upstream_inputs(stage))
    for other in reversed(system.stages[:position]):
        if other.name not in cache and any(_of(other, name) for name in wanted):
            wanted += upstream_inputs(other._replace(terms=()))
    found: dict[str, Tensors] = {}
    for other in system.stages[:position]:
        names = [n.partition(".")[2] for n in dict.fromkeys(wanted) if _of(other, n)]
        if not names:
            continue
        if other.name in cache:
            have = cache[other.name]
        elif other.name in upstream:
            variables = upstream[other.name]
            inputs = _select(found, other.needs)
            have, _ = other.forward(variables, batch, inputs, train=False, key=None)
        else:
            raise ValueError(
                f"Stage {stage.name!r} reads {other.name!r}, which is neither in "
                f"upstream nor in the batch's cache."
            )
        missing = [name for name in names if name not in have]
        if missing:
            raise ValueError(
                f"Stage {other.name!r} gives {', '.join(sorted(have))}; "
                f"{stage.name!r} reads {', '.join(missing)}."
            )
        found[other.name] = jax.lax.stop_gradient({n: have[n] for n in names})
    return _select(found, upstream_inputs(stage))


def with_labelled(batch: Batch) -> dict[str, Any]:
    """Adds the masks `labelled f32[b]` and `unseen_labelled` where there are labels.

    Where an example has a row of labels, `labelled` is how many of them are known, so
    that a mean over examples is one over labels.

    `unseen_labelled` is for terms that read earlier stages' outputs: labelled windows
    of people that no earlier stage was trained on (`held_out`), if any were held out,
    else all labelled ones.
    """
    batch = dict(batch)
    if "label" in batch and "labelled" not in batch:
        known = (batch["label"] >= 0).astype(jnp.float32)
        if jnp.issubdtype(batch["label"].dtype, jnp.floating):
            known = jnp.sum(known, axis=-1)  # a row of labels per example
        batch["labelled"] = known
    if "labelled" in batch:
        batch["unseen_labelled"] = batch["labelled"] * batch.get("held_out", 1.0)
    return batch


def _select(tensors: Mapping[str, Tensors], names: Sequence[str]) -> dict[str, Tensors]:
    """Keeps the tensors named "stage.tensor"."""
    kept: dict[str, Tensors] = {}
    for name in names:
        group, _, key = name.partition(".")
        kept.setdefault(group, {})[key] = tensors[group][key]
    return kept


def _of(stage: Stage, name: str) -> bool:
    return name.startswith(f"{stage.name}.")


Specs = dict[str, tuple[tuple[int, ...], str]]
"""Tensor name -> shape of one window, and dtype."""


def teacher_function(
    system: System, stage_name: str, names: Sequence[str]
) -> Callable[[Mapping[str, Variables], Batch], dict[str, Array]]:
    """Builds `(upstream, batch) -> {"teacher.logits": [b, k], ...}`.

    Args:
        system: System of the stages.
        stage_name: Stage that reads the outputs.
        names: Those of the tensors it reads that are wanted.

    Raises:
        ValueError: If the stage does not read one of them.
    """
    stage = get_stage(system, stage_name)
    unknown = set(names) - set(upstream_inputs(stage))
    if unknown:
        raise ValueError(f"Stage {stage_name!r} does not read {', '.join(unknown)}.")
    reader = stage._replace(terms=(), needs=tuple(names))

    def run(upstream: Mapping[str, Variables], batch: Batch) -> dict[str, Array]:
        found = upstream_tensors(system, reader, upstream, batch)
        return {
            f"{group}.{name}": tensor
            for group, tensors in found.items()
            for name, tensor in tensors.items()
        }

    return run


def teacher_specs(
    system: System,
    stage_name: str,
    names: Sequence[str],
    upstream: Mapping[str, Any],
    batch: Batch,
) -> Specs:
    """Traces the shapes of earlier stages' outputs for one window.

    Args:
        system: System of the stages.
        stage_name: Stage that reads the outputs.
        names: Those of the tensors it reads that are wanted.
        upstream: Variables, or their shapes.
        batch: An example.

    Raises:
        InputError: If a tensor has no row per window.
    """
    run = teacher_function(system, stage_name, names)
    shapes = jax.eval_shape(run, dict(upstream), dict(batch))
    num = batch_length(batch)
    for name, tensor in shapes.items():
        if tensor.shape[:1] != (num,):
            raise InputError(
                f"{name} has no row a window (shape {list(tensor.shape)}), so it "
                "cannot be kept: run the teacher online (--train.teacher online)."
            )
    return {name: (s.shape[1:], s.dtype.name) for name, s in shapes.items()}


def teacher_rows(
    system: System,
    stage_name: str,
    names: Sequence[str],
    upstream: Mapping[str, Variables],
) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Compiles the earlier stages into `batch -> arrays`, which fills a cache."""
    run = jax.jit(teacher_function(system, stage_name, names))

    def rows(batch: Batch) -> dict[str, np.ndarray]:
        return jax.device_get(run(dict(upstream), batch))

    return rows


def variables_hash(upstream: Mapping[str, Variables]) -> str:
    """Computes the hash of some stages' arrays, with paths, dtypes and shapes."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(upstream))
    for path, leaf in leaves:
        array = np.asarray(leaf)
        where = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(where.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
