"""Classes of training windows, for controls that move outputs within them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eegkd.cache.read import TeacherTensor
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.controls import BY_CLASS, class_groups, share_alone
from eegkd.evaluate.predictions import has_label
from eegkd.pipeline.compiled import Program, make_program
from eegkd.pipeline.folds import FoldData
from eegkd.pipeline.inference import predict_rows
from eegkd.systems import Stage, System, upstream_inputs
from eegkd.systems.outputs import needs_outputs
from eegkd.typing import Variables

MOST_ALONE = 0.5
_SHUFFLE = "within_class_shuffle"


def groups_of(
    system: System,
    programs: Mapping[Any, Program],
    upstream: Mapping[str, Variables],
    cache: Mapping[str, Mapping[str, TeacherTensor]],
    data: FoldData,
    config: Any,
    variant: str = "",
) -> np.ndarray:
    """Numbers the class of each training window, by its label or the teacher's.

    The teacher decides where the student may use no label.

    Returns:
        `i64[n]` over the store's rows; of other rows it means nothing.
    """
    rows, labels = data.fold.train, data.store.student_labels
    unknown = _unknown(labels, rows)
    prob = np.zeros((len(unknown), data.store.num_classes), np.float32)
    stage = deciding_stage(system)
    if len(unknown) and stage is not None and _runs(system, stage, upstream):
        program = programs.get((variant, stage.name, ""))
        program = program or make_program(system, stage.name, config)
        variables = upstream[stage.name]
        prob = predict_rows(program, variables, data.store, unknown, data.zscore)
    elif len(unknown):
        prob = _cached(system, stage, cache, unknown, several=labels.ndim > 1)
    return class_groups(labels, rows, unknown, prob)


def _unknown(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    known = labels[rows] >= 0
    return rows[~(known if known.ndim == 1 else known.all(axis=1))]


def deciding_stage(system: System) -> Stage | None:
    """Returns the last stage before the student that predicts, the teacher."""
    found = [stage for stage in system.stages[:-1] if stage.predict is not None]
    return found[-1] if found else None


def _runs(system: System, stage: Stage, upstream: Mapping[str, Variables]) -> bool:
    """True if the stage can be run here on windows alone."""
    alone = stage.scope == "row" and not needs_outputs(system, stage)
    return stage.name in upstream and alone


def _logits(system: System, stage: Stage | None) -> tuple[str, str] | None:
    """Returns stage and name of a tensor of class logits that the student reads."""
    for name in upstream_inputs(system.stages[-1]):
        group, _, key = name.partition(".")
        if key.endswith("logits") and (stage is None or group == stage.name):
            return group, key
    return None


def _cached(
    system: System,
    stage: Stage | None,
    cache: Mapping[str, Mapping[str, TeacherTensor]],
    rows: np.ndarray,
    *,
    several: bool,
) -> np.ndarray:
    found = _logits(system, stage)
    if found is None:
        raise InputError(_NO_DECISION)
    logits = np.asarray(cache[found[0]][found[1]].gather(rows), np.float64)
    return (logits >= 0).astype(np.float32) if several else logits


_NO_DECISION = (
    f"--rows {' '.join(BY_CLASS)}: a window whose label the student may not use is of "
    "the class that the teacher decides, and here it gives no logits and cannot be run "
    "on windows: leave these rows out."
)


def check_decisions(
    system: System, external: frozenset[str], store: WindowStore, config: Any
) -> None:
    """Refuses controls within classes where nothing tells a window's class.

    Args:
        system: The system.
        external: Stages whose outputs come from another framework.
        store: Windows.
        config: Options of the run.

    Raises:
        InputError: If there are unlabelled windows, and no decision of a teacher.
    """
    hidden = _unknown(store.student_labels, np.arange(len(store)))
    if not set(BY_CLASS) & set(config.rows):
        return
    if not len(hidden) and not config.train.labelled_people:
        return
    stage = deciding_stage(system)
    upstream: Any = {s.name: None for s in system.stages if s.name not in external}
    if stage is not None and _runs(system, stage, upstream):
        return
    if _logits(system, stage) is None:
        raise InputError(_NO_DECISION)


def without_rows_in_place(
    config: Any, store: WindowStore, folds: Sequence[Fold]
) -> tuple[Any, tuple[str, ...]]:
    """Drops `within_class_shuffle` where it would leave most windows as they are.

    Of windows with several labels, those whose combination no other window has keep
    their own teacher's outputs.

    Returns:
        The options, and what the report's reader is to know.
    """
    labels = store.student_labels
    if labels.ndim == 1:
        return config, ()
    known = has_label(labels)
    share = max(share_alone(labels, fold.train[known[fold.train]]) for fold in folds)
    said = (
        f"{_SHUFFLE} moves the teacher's outputs among windows of equal labels: "
        f"{share:.0%} of the labelled training windows are alone in theirs (in the "
        "fold with most)"
    )
    if share <= MOST_ALONE:
        own = (f"{said}, and keep their own.",)
        return config, own if _SHUFFLE in config.rows else ()
    # Said of a run that is judged again as well, whose options have no such row.
    rows = tuple(row for row in config.rows if row != _SHUFFLE)
    said = f"{said}, so it would change little and was not run."
    return dataclasses.replace(config, rows=rows), (said,)
