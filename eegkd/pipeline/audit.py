"""What a finished run's embeddings hold of the people in it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from eegkd.evaluate.identity import Identity, identity_probe
from eegkd.pipeline.baselines import band_features
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.fit import Fitted, FoldData
from eegkd.pipeline.inference import collect
from eegkd.systems import get_stage
from eegkd.typing import Batch, Variables

PROBED = ("teacher", "student", "no_teacher")


def probe_identity(
    kept: Mapping[str, tuple[Program, Fitted]], data: FoldData, *, seed: int
) -> dict[str, Identity]:
    """Probes embeddings of one fold's test subjects for who they are.

    Args:
        kept: Programs and finished trainings of this fold, by model.
        data: The fold.
        seed: Of the probe.

    Returns:
        By model, and for band power as what any signal gives away; empty where the
        corpus tells no subjects or too few windows of each.
    """
    store, rows = data.store, data.fold.test
    if not store.manifest["has_subjects"]:
        return {}
    index = store.index
    where = [index[k][rows] for k in ("subject", "recording_id", "start_s")]
    features = {"band power": band_features(data, rows)}
    for model in (name for name in PROBED if name in kept):
        program, fitted = kept[model]
        pooled = embed_rows(program, fitted.variables, data, rows)
        if pooled is not None:
            features[model] = pooled
    found = {k: identity_probe(x, *where, seed=seed) for k, x in features.items()}
    return {name: value for name, value in found.items() if value is not None}


def embed_rows(
    program: Program, variables: Variables, data: FoldData, rows: np.ndarray
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

    signal = {"signal": np.asarray(data.store.signal[rows[:1]])}
    if jax.eval_shape(pool, variables, signal) is None:
        return None
    run = jax.jit(pool)
    names = program.system.inputs

    def embed(batch: Batch) -> Any:
        return run(variables, {name: batch[name] for name in names})

    return collect(embed, program.system, data.store, rows, data.zscore)
