"""Tensors that a stage reads of earlier ones: shapes, and need of a cache."""

from collections.abc import Mapping
from typing import Any

import jax

from eegkd.systems import SignalConfig, Stage, System, upstream_inputs
from eegkd.systems.batches import EXAMPLE_WINDOWS, shapes_of, stage_example
from eegkd.typing import Variables


def needs_outputs(system: System, stage: Stage) -> bool:
    """Returns True if a stage reads others that cannot be run on its own batches.

    Those are stages whose scope is a recording, and cross-fitted ones, also where
    others are computed from them; a stage whose own scope is a recording can run none.
    """
    reads = {name.partition(".")[0] for name in wanted_outputs(system, stage)}
    if stage.scope == "recording":
        return bool(reads)
    return any(
        other.scope == "recording" or other.options.crossfit
        for other in system.stages
        if other.name in reads
    )


def wanted_outputs(system: System, reader: Stage) -> list[str]:
    """Lists the tensors that a stage reads, and those they are computed from."""
    wanted = list(upstream_inputs(reader))
    for stage in reversed(system.stages):
        if any(name.startswith(f"{stage.name}.") for name in wanted):
            wanted += upstream_inputs(stage._replace(terms=()))
    return list(dict.fromkeys(wanted))


def output_shapes(
    system: System,
    reader: Stage,
    variables: Mapping[str, Variables],
    signal: SignalConfig,
    size: int = 1,
) -> dict[str, dict[str, Any]]:
    """Traces the tensors that a stage reads of those before it.

    Args:
        system: The system.
        reader: The stage that reads.
        variables: Finished variables of the earlier stages, or their shapes.
        signal: Description of the store's signals.
        size: Examples in the reader's batch.

    Returns:
        Stage name -> tensor name -> shape and dtype, for a batch of the reader.
    """
    leads = {"row": (size,), "recording": (size, EXAMPLE_WINDOWS)}
    found: dict[str, dict[str, Any]] = {}
    position = [stage.name for stage in system.stages].index(reader.name)
    for stage in system.stages[:position]:
        batch = shapes_of(stage_example(system, stage, signal, size))
        read = {
            other: {
                name: _led(x, leads[_scope(system, other)], leads[stage.scope])
                for name, x in tensors.items()
            }
            for other, tensors in found.items()
        }
        tensors, _ = jax.eval_shape(
            lambda v, b, r, stage=stage: stage.forward(v, b, r, train=False, key=None),
            variables[stage.name],
            batch,
            read,
        )
        found[stage.name] = tensors
    wanted = upstream_inputs(reader)
    return {
        other: kept
        for other, tensors in found.items()
        if (
            kept := {
                name: _led(x, leads[_scope(system, other)], leads[reader.scope])
                for name, x in tensors.items()
                if f"{other}.{name}" in wanted
            }
        )
    }


def _scope(system: System, name: str) -> str:
    return next(stage.scope for stage in system.stages if stage.name == name)


def _led(x: Any, was: tuple[int, ...], now: tuple[int, ...]) -> Any:
    """Replaces the leading axes of a tensor by those of another scope."""
    if x.shape[: len(was)] != was:
        return x
    return jax.ShapeDtypeStruct((*now, *x.shape[len(was) :]), x.dtype)
