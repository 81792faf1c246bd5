"""Inputs of the benchmark: untrained stages, windows, programs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from eegkd.bench.nested import Choice, Nested, make_chain
from eegkd.config import RunConfig
from eegkd.data.batches.loader import Loader, make_loader
from eegkd.data.batches.maker import BatchPlan, fit_train_zscore
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.pipeline.inference import upstream_outputs
from eegkd.systems import SignalConfig, Stage, System
from eegkd.systems.batches import prepare_fn, start_stage
from eegkd.systems.signal import signal_of
from eegkd.train.optimiser import stage_optimiser
from eegkd.train.state import TrainState, init_state
from eegkd.typing import Variables

_WITHOUT_END = 10**6


class Setup(NamedTuple):
    """Inputs of the timed programs.

    Attributes:
        chain: Nested programs; the last is the step of a training.
        begin: The state before the first step.
        variables: The stage's variables.
        upstream: Variables of the earlier stages, where the step computes them.
        store: The windows.
        cache: Outputs of the earlier stages, aligned with the store's rows.
        batch: One batch, with the cache where there is one.
        loader: Batches without end.
    """

    chain: list[Nested]
    begin: TrainState
    variables: Variables
    upstream: Mapping[str, Variables]
    store: WindowStore
    cache: Mapping[str, Mapping[str, np.ndarray]]
    batch: dict[str, Any]
    loader: Loader


def prepare_bench(
    system: System,
    stage: Stage,
    config: RunConfig,
    store: WindowStore,
    choice: Choice,
    *,
    online: bool,
) -> Setup:
    """Starts untrained stages, fills the cache in memory and makes the programs.

    Raises:
        InputError: If there are too few windows, or a balancer, whose cost belongs to
            no single term.
    """
    if config.train.balance != "fixed":
        raise InputError(
            "bench takes a step apart into its terms: leave out --train.balance "
            f"{config.train.balance}, which scales them together."
        )
    size, rows = config.train.batch_size, np.arange(len(store))
    signal = signal_of(store)
    if len(store) < size:
        raise InputError(
            f"The store has {len(store)} windows, a batch {size}: lower --batch."
        )
    earlier: dict[str, Variables] = {}
    for other in system.stages:
        if other.name == stage.name:
            break
        made = start_stage(system, other, signal, earlier)
        earlier[other.name] = jax.jit(other.finish)(made) if other.finish else made
    variables = start_stage(system, stage, signal, earlier)
    wanted = store.manifest["preprocessing"].get("zscore") == "train_set"
    zscore = fit_train_zscore(store, rows) if wanted else None
    cache = {}
    if earlier:
        cache = upstream_outputs(system, stage.name, earlier, store, rows, zscore)
    tx = stage_optimiser(config.optim, stage)
    online = online and bool(cache)
    chain = make_chain(
        system,
        stage.name,
        tx,
        choice,
        online=online,
        accumulate=config.train.accumulate,
    )

    def loader(cache: Any) -> Loader:
        return make_loader(
            store,
            rows,
            batch_size=size,
            seed=0,
            num_steps=_WITHOUT_END,
            plan=BatchPlan(
                prepare=prepare_fn(system), zscore=zscore, cache=cache or None
            ),
            workers=config.train.workers,
        )

    first = loader(cache)
    batch = next(first)
    first.close()
    begin = init_state(stage, variables, tx, jax.random.key(0))
    return Setup(
        chain,
        begin,
        variables,
        earlier if online else {},
        store,
        cache,
        batch,
        loader({} if online else cache),
    )


def draw_store(signal: SignalConfig, num_windows: int) -> WindowStore:
    """Draws noise with random labels, in memory."""
    rng = np.random.default_rng(0)
    shape = (num_windows, signal.n_chans, signal.n_times)
    names = [f"{i % 8}" for i in range(num_windows)]
    seconds = signal.n_times / signal.rate
    index = {
        "recording_id": names,
        "subject": names,
        "start_s": np.arange(num_windows) // 8 * seconds,
        "label": np.arange(num_windows) % len(signal.classes),
    }
    manifest = {
        "corpus": "noise",
        "classes": list(signal.classes),
        "channels": signal.channels or [f"E{i}" for i in range(signal.n_chans)],
        "rate": signal.rate,
        "window_s": seconds,
    }
    drawn = rng.standard_normal(shape, np.float32)
    return WindowStore.from_arrays(None, drawn, index, manifest)
