"""Inference of finished or half-trained stages over a store, in full batches."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eegkd.data.batches.augment import UNCHANGED, AugmentConfig
from eegkd.data.batches.maker import BatchMaker, BatchPlan, Cache, ZScore, eval_batches
from eegkd.data.batches.recordings import recording_maker
from eegkd.data.windows.store import WindowStore
from eegkd.pipeline.compiled import EVAL_BATCH, EVAL_RECORDINGS, Program, inputs_of
from eegkd.systems import Stage, System, get_stage
from eegkd.systems.batches import prepare_fn
from eegkd.train.inputs import upstream_tensors
from eegkd.train.sharding import fetch
from eegkd.typing import Batch, Variables

Run = Callable[[Batch], Any]


def batch_maker(
    system: System,
    store: WindowStore,
    *,
    stages: Sequence[str] | None = None,
    zscore: ZScore | None = None,
    cache: Cache | None = None,
    augment: AugmentConfig = UNCHANGED,
) -> BatchMaker:
    """Makes a system's batches with all labels shown.

    Args:
        system: System whose `prepare` is called.
        store: Windows.
        stages: Names of the stages that will run; None is all.
        zscore: Statistics of the training subjects, if the store asks for them.
        cache: Outputs of earlier stages, aligned with the store's rows.
        augment: Random changes.
    """
    plan = BatchPlan(
        prepare=prepare_fn(system, stages), zscore=zscore, cache=cache, augment=augment
    )
    return BatchMaker(store=store, plan=plan)


def predict_rows(
    program: Program,
    variables: Variables,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
    cache: Cache | None = None,
) -> np.ndarray:
    """Computes the probabilities of some windows, f32[n, k]."""
    stage = get_stage(program.system, program.stage)
    as_inputs = inputs_of(program.system, stage)

    def run(batch: Batch) -> Any:
        return program.predict(variables, as_inputs(batch))

    return collect(run, program.system, stage, store, rows, zscore, cache)


def embed_rows(
    program: Program,
    variables: Variables,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> np.ndarray | None:
    """Computes the pooled embedding of some windows, f32[n, d].

    Returns:
        Embeddings; None if the stage pools nothing or cannot run on windows alone.
    """
    system, stage = program.system, get_stage(program.system, program.stage)
    if stage.needs or stage.scope == "recording":
        return None

    def pool(variables: Variables, batch: Batch) -> Any:
        tensors, _ = stage.forward(variables, batch, {}, train=False, key=None)
        return tensors.get("pooled")

    as_inputs, run = inputs_of(system, stage), jax.jit(pool)
    example = batch_maker(system, store, stages=running(system, stage))(rows[:1])
    if jax.eval_shape(pool, variables, as_inputs(example)) is None:
        return None

    def embed(batch: Batch) -> Any:
        return run(variables, as_inputs(batch))

    return collect(embed, system, stage, store, rows, zscore)


def upstream_outputs(
    system: System,
    stage_name: str,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Computes the outputs that one stage reads of earlier ones, over some windows.

    Returns:
        Stage name -> tensor name -> array aligned with the store's rows. Rows that
        were not asked for are NaN, so that reading one by mistake is seen at once.
    """
    stage = get_stage(system, stage_name)
    run = jax.jit(functools.partial(upstream_tensors, system, stage, upstream))
    values = collect(run, system, stage, store, rows, zscore)
    return jax.tree.map(lambda x: spread(x, rows, len(store)), values)


def spread(values: np.ndarray, rows: np.ndarray, num: int) -> np.ndarray:
    """Returns values of some rows as an array over `num` rows, NaN elsewhere."""
    whole = np.full((num, *values.shape[1:]), np.nan, values.dtype)
    whole[rows] = values
    return whole


def validation_loss(
    program: Program,
    variables: Variables,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
    cache: Cache | None = None,
) -> float:
    """Computes the weighted sum of a stage's mean losses over some windows.

    A stage that predicts nothing is selected by it. Scheduled weights take their
    values at the end of training.
    """
    stage = get_stage(program.system, program.stage)
    sums, counts = dict[str, float](), dict[str, float]()
    make = _batches(program.system, stage, store, rows, zscore, cache)
    for batch, valid in make:
        # Padding would count: whole batches alone, and the rest by itself.
        part = jax.tree.map(lambda x, v=valid: np.asarray(x)[v], batch)
        for name, (total, count) in fetch(
            program.losses(variables, upstream, part)
        ).items():
            sums[name] = sums.get(name, 0.0) + float(total)
            counts[name] = counts.get(name, 0.0) + float(count)
    weights = {
        term.name: float(
            term.weight(program.num_steps) if callable(term.weight) else term.weight
        )
        for term in stage.terms
    }
    return sum(weights[name] * sums[name] / max(counts[name], 1) for name in sums)


def collect(
    run: Run,
    system: System,
    stage: Stage,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
    cache: Cache | None = None,
) -> Any:
    """Runs full batches without waiting for each, and drops the padding.

    Returns:
        A tree of arrays, one row per row of `rows`, whatever the stage's scope.
    """
    pending = []
    for batch, valid in _batches(system, stage, store, rows, zscore, cache):
        if stage.scope == "recording":
            valid = valid[:, None] & batch["mask"]
        pending.append((run(batch), valid))
    parts = [jax.tree.map(lambda x, v=v: fetch(x)[v], out) for out, v in pending]
    found = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    if stage.scope == "row":
        return found
    order = np.concatenate(recording_maker(_any_maker(store), rows).recordings)
    back = np.argsort(order)[np.searchsorted(np.sort(order), rows)]
    return jax.tree.map(lambda x: x[back], found)


def _batches(
    system: System,
    stage: Stage,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None,
    cache: Cache | None,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields batches of one size, each with a mask of its real examples."""
    maker = batch_maker(
        system, store, stages=running(system, stage), zscore=zscore, cache=cache
    )
    if stage.scope == "recording":
        whole = recording_maker(maker, rows, longest=np.arange(len(store)))
        size = min(stage.options.eval_batch or EVAL_RECORDINGS, len(whole.recordings))
        source: Any = whole
        items = np.arange(len(whole.recordings))
    else:
        size = min(stage.options.eval_batch or EVAL_BATCH, len(rows))
        source, items = maker, rows
    yield from eval_batches(source, items, batch_size=size)


def running(system: System, stage: Stage) -> list[str]:
    """Lists the names of a stage and of those before it, which may run with it."""
    names = [other.name for other in system.stages]
    return names[: names.index(stage.name) + 1]


def _any_maker(store: WindowStore) -> BatchMaker:
    return BatchMaker(store=store)
