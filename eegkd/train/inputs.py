"""What a training step reads: its keys, earlier stages' tensors, the labelled mask."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from eegkd.systems import Stage, System, upstream_inputs
from eegkd.train.state import TrainState
from eegkd.typing import Batch, StepKeys, Tensors, Variables


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
    """Adds the masks `labelled f32[b]` and `probed` where there are labels.

    `probed` is for terms that read what earlier stages say of a window: labelled ones
    of people held out from the training of those (`held_out`), if there are any.
    """
    batch = dict(batch)
    if "label" in batch and "labelled" not in batch:
        known = batch["label"] >= 0
        known = known if known.ndim == 1 else jnp.all(known, axis=-1)
        batch["labelled"] = known.astype(jnp.float32)
    if "labelled" in batch:
        batch["probed"] = batch["labelled"] * batch.get("held_out", 1.0)
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
