"""Outputs of compiled stages over rows of a store, in full batches."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from eegkd.data.batches.maker import BatchPlan, ZScore, eval_batches
from eegkd.data.windows.store import WindowStore
from eegkd.pipeline.compiled import Program
from eegkd.systems import System, get_stage, keep_all
from eegkd.train.sharding import fetch
from eegkd.train.step import upstream_tensors
from eegkd.typing import Batch, Variables

EVAL_BATCH = 256


def predict_rows(
    program: Program,
    variables: Variables,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> np.ndarray:
    """Computes the probabilities of some windows, f32[n, k]."""
    names = program.system.inputs

    def run(batch: Batch) -> Any:
        return program.predict(variables, {name: batch[name] for name in names})

    return collect(run, program.system, store, rows, zscore)


def embed_rows(
    program: Program,
    variables: Variables,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> np.ndarray | None:
    """Computes the pooled embedding of some windows, f32[n, d].

    Returns:
        None for a stage that pools nothing or reads earlier stages.
    """
    stage = get_stage(program.system, program.stage)
    if stage.needs:
        return None

    def pool(variables: Variables, batch: Batch) -> Any:
        tensors, _ = stage.forward(variables, batch, {}, train=False, key=None)
        return tensors.get("pooled")

    signal = {"signal": np.asarray(store.signal[rows[:1]])}
    if jax.eval_shape(pool, variables, signal) is None:
        return None
    run = jax.jit(pool)
    names = program.system.inputs

    def embed(batch: Batch) -> Any:
        return run(variables, {name: batch[name] for name in names})

    return collect(embed, program.system, store, rows, zscore)


def upstream_outputs(
    system: System,
    stage_name: str,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Runs the stages that one stage reads, over some windows.

    Returns:
        Stage name -> tensor name -> array aligned with the store's rows. Rows that
        were not asked for are NaN, so that reading one by mistake is seen at once.
    """
    stage = get_stage(system, stage_name)
    run = jax.jit(functools.partial(upstream_tensors, system, stage, upstream))
    values = collect(run, system, store, rows, zscore)

    def spread(value: np.ndarray) -> np.ndarray:
        whole = np.full((len(store), *value.shape[1:]), np.nan, value.dtype)
        whole[rows] = value
        return whole

    return jax.tree.map(spread, values)


def collect(
    run: Any,
    system: System,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None,
) -> Any:
    """Runs full batches without waiting for each, and drops the padding."""
    plan = BatchPlan(prepare=prepare_fn(system), zscore=zscore)
    batches = eval_batches(
        store, rows, batch_size=min(EVAL_BATCH, len(rows)), plan=plan
    )
    pending = []
    for batch in batches:
        valid = batch.pop("valid")
        pending.append((run(batch), valid))
    parts = [jax.tree.map(lambda x, v=v: fetch(x)[v], out) for out, v in pending]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def prepare_fn(system: System) -> Any:
    """Returns the system's `prepare`, or None where it adds nothing.

    Calling it for every window would cost more than the step of a small student.
    """
    return None if system.prepare is keep_all else system.prepare
