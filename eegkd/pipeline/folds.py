"""The windows of one fold, what is fitted on them, and how a model is scored there."""

from typing import NamedTuple

import numpy as np

from eegkd.data.batches.maker import ZScore, fit_train_zscore
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.metrics import score
from eegkd.evaluate.predictions import Predictions, has_label, make_predictions
from eegkd.evaluate.tasks import task_of


class FoldData(NamedTuple):
    """The windows of one fold, and the statistics fitted on its training subjects."""

    store: WindowStore
    fold: Fold
    zscore: ZScore | None


def fold_data(store: WindowStore, fold: Fold) -> FoldData:
    """Fits the statistics of a fold's training rows, if the store needs any."""
    fitted = store.manifest["preprocessing"].get("zscore") == "train_set"
    return FoldData(
        store, fold, fit_train_zscore(store, fold.train) if fitted else None
    )


def predictions_of(data: FoldData, rows: np.ndarray, prob: np.ndarray) -> Predictions:
    """Joins probabilities with the origin of their windows."""
    index = data.store.index
    return make_predictions(
        prob,
        data.store.labels[rows],
        index["subject"][rows],
        index["recording_id"][rows],
        index["start_s"][rows],
        index["window_id"][rows],
    )


def selection_metrics(store: WindowStore) -> tuple[str, ...]:
    """Returns the metric that epochs are chosen by, and one for ties, if there is."""
    task = task_of(store.manifest)
    return (task.monitor, task.tie) if task.tie else (task.monitor,)


def val_score(data: FoldData, prob: np.ndarray) -> dict[str, float]:
    """Computes the metrics of the validation windows."""
    p = predictions_of(data, data.fold.val, prob)
    found = score(p, selection_metrics(data.store))
    return {f"val/{name}": value for name, value in found.items()}


def rank(predictions: Predictions, store: WindowStore) -> tuple[float, ...]:
    """Returns what models are chosen by: larger is better, undefined the least."""
    found = score(predictions, selection_metrics(store)).values()
    return tuple(value if np.isfinite(value) else -np.inf for value in found)


def hold_out(data: FoldData, share: float, seed: int) -> np.ndarray | None:
    """Chooses the subjects held out from stages before the student.

    Returns:
        `bool[n]` over the store's rows; None where nobody is to be held out.

    Raises:
        InputError: If that would leave nobody on either side.
    """
    store = data.store
    if not share:
        return None
    rows = data.fold.train[has_label(store.student_labels[data.fold.train])]
    people = np.unique(store.index["subject"][rows])
    num = round(share * len(people))
    if not 0 < num < len(people):
        raise InputError(
            f"--train.held_out {share}: of the {len(people)} training subjects whose "
            f"labels the student may use, that is {num}. Choose "
            + (
                "a share that leaves subjects on both sides, as 0.5 does, or 0."
                if len(people) > 1
                else "0, or add subjects."
            )
        )
    rng = np.random.default_rng([seed, data.fold.index])
    return np.isin(store.index["subject"], rng.permutation(people)[:num])


def hidden_labels(store: WindowStore, hidden: np.ndarray) -> np.ndarray:
    """Returns the store's labels with -1 where `hidden` is True."""
    mask = hidden if store.labels.ndim == 1 else hidden[:, None]
    return np.where(mask, -1, store.labels)


def part_of_rows(data: FoldData, num_parts: int, seed: int) -> np.ndarray:
    """Divides the training subjects into parts, for a cross-fitted stage.

    Returns:
        `i32[n]` over the store's rows: the part, from 1; 0 outside the training rows.

    Raises:
        InputError: If there are fewer training subjects than parts.
    """
    subject, rows = data.store.index["subject"], data.fold.train
    people = np.unique(subject[rows])
    if len(people) < num_parts:
        raise InputError(
            f"A stage is cross-fitted in {num_parts} parts, and fold {data.fold.index} "
            f"trains on {len(people)} subjects: "
            + (
                f"ask for at most {len(people)} parts."
                if len(people) > 1
                else "add subjects, or raise --num_folds."
            )
        )
    rng = np.random.default_rng([seed, data.fold.index, num_parts])
    groups = np.array_split(rng.permutation(people), num_parts)
    parts = np.zeros(len(data.store), np.int32)
    for number, group in enumerate(groups, 1):
        parts[rows[np.isin(subject[rows], group)]] = number
    return parts


def part_data(data: FoldData, parts: np.ndarray, part: str) -> FoldData:
    """Returns the fold without the training subjects of one part; "" leaves all."""
    if not part:
        return data
    kept = data.fold.train[parts[data.fold.train] != int(part)]
    return data._replace(fold=data.fold._replace(train=kept))
