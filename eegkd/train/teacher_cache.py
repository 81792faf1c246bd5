"""What fills a teacher cache: the earlier stages of a system, run over batches."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eegkd.errors import InputError
from eegkd.systems import System, get_stage, upstream_inputs
from eegkd.train.step import upstream_tensors
from eegkd.typing import Array, Batch, Variables

Specs = dict[str, tuple[tuple[int, ...], str]]
"""Tensor name -> shape of one window, and dtype."""


def teacher_function(
    system: System, stage_name: str, names: Sequence[str]
) -> Callable[[Mapping[str, Variables], Batch], dict[str, Array]]:
    """Builds `(upstream, batch) -> {"teacher.logits": [b, k], ...}`.

    Args:
        system: Whose stages to run.
        stage_name: Which stage reads the outputs.
        names: Which of the tensors it reads.

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
    """Traces what the earlier stages give a window; computes nothing.

    Args:
        system: Whose stages.
        stage_name: Which stage reads the outputs.
        names: Which of the tensors it reads.
        upstream: Variables, or their shapes.
        batch: An example.

    Raises:
        InputError: If a tensor has no row a window.
    """
    run = teacher_function(system, stage_name, names)
    shapes = jax.eval_shape(run, dict(upstream), dict(batch))
    num = len(batch["signal"])
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
    """Compiles the earlier stages into `batch -> arrays`, what a cache is filled by."""
    run = jax.jit(teacher_function(system, stage_name, names))

    def rows(batch: Batch) -> dict[str, np.ndarray]:
        return jax.device_get(run(dict(upstream), batch))

    return rows


def variables_hash(upstream: Mapping[str, Variables]) -> str:
    """Hashes every array of some stages, with its path, dtype and shape."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(upstream))
    for path, leaf in leaves:
        array = np.asarray(leaf)
        where = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(where.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
