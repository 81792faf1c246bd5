"""Predictions of windows, and the origin of the windows."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Shaped
from numpy.typing import ArrayLike

from eegkd.errors import InputError
from eegkd.host.arrays import open_npz
from eegkd.host.atomic import write_atomic


class Predictions(NamedTuple):
    """Probabilities of windows with their labels and origin; rows correspond.

    Attributes:
        prob: Class probabilities; of several labels, each one's own.
        label: The class, -1 where unlabelled; or a row of k labels, each 0 or 1, and
            -1 where it was not asked.
        subject: The unit of all statistics; fold names where a corpus has none.
        recording: The recording a window was cut from.
        start_s: Where the window starts in its recording, in seconds.
        window_id: The row's number in the window store.
    """

    prob: Float32[np.ndarray, "n k"]
    label: Int32[np.ndarray, " n"] | Float32[np.ndarray, "n k"]
    subject: Shaped[np.ndarray, " n"]
    recording: Shaped[np.ndarray, " n"]
    start_s: Float32[np.ndarray, " n"]
    window_id: Int64[np.ndarray, " n"]


_KINDS = {
    **{"prob": "f", "label": "if", "subject": "U", "recording": "U"},
    **{"start_s": "f", "window_id": "i"},
}
_DTYPES = (np.float32, np.str_, np.str_, np.float32, np.int64)


def make_predictions(
    prob: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    recording: ArrayLike | None = None,
    start_s: ArrayLike | None = None,
    window_id: ArrayLike | None = None,
) -> Predictions:
    """Casts and checks the arrays of `Predictions`.

    Raises:
        ValueError: If lengths differ, a probability is not finite or outside [0, 1],
            or a label has no column.
    """
    label = np.asarray(label)
    label = label.astype(np.float32 if label.ndim == 2 else np.int32)
    n = len(np.atleast_1d(label))
    columns = (
        prob,
        subject,
        subject if recording is None else recording,
        np.zeros(n) if start_s is None else start_s,
        np.arange(n) if window_id is None else window_id,
    )
    prob, *others = (np.asarray(a, d) for a, d in zip(columns, _DTYPES, strict=True))
    made = Predictions(prob, label, *others)
    lengths = {name: len(a) for name, a in made._asdict().items()}
    if len(set(lengths.values())) != 1 or made.prob.ndim != 2:
        raise ValueError(f"prob must be [n, k] and rows correspond; got {lengths}.")
    inside = (made.prob >= 0) & (made.prob <= 1 + 1e-5)  # False for NaN
    if not inside.all():
        bad = np.flatnonzero(~inside.all(axis=1))
        raise ValueError(
            f"Probabilities must lie in [0, 1]; {len(bad)} of {n} rows do not, the "
            f"first is row {bad[0]}: {made.prob[bad[0]]}."
        )
    if made.label.ndim == 2:
        if made.label.shape != made.prob.shape or not np.isin(label, (-1, 0, 1)).all():
            raise ValueError(
                f"Several labels per window are rows of k={made.prob.shape[1]} values "
                f"of -1, 0 or 1; got {made.label.shape} values."
            )
    elif n and not -1 <= made.label.min() <= made.label.max() < made.prob.shape[1]:
        raise ValueError(
            f"Labels must be -1 or below k={made.prob.shape[1]}; got "
            f"{made.label.min()} to {made.label.max()}."
        )
    return made


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Joins the predictions of disjoint test folds."""
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def select(predictions: Predictions, rows: np.ndarray) -> Predictions:
    """Returns rows by index or mask."""
    return Predictions(*(column[rows] for column in predictions))


def has_label(label: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Returns where a window has a known label; one of several is enough."""
    known = np.asarray(label >= 0)
    return known if known.ndim == 1 else np.any(known, axis=1)


def labelled(predictions: Predictions) -> Predictions:
    """Drops unlabelled rows.

    Raises:
        ValueError: If no row is left.
    """
    kept = select(predictions, has_label(predictions.label))
    if not len(kept.label):
        raise ValueError("No labelled window to score.")
    return kept


def with_units(predictions: Predictions, units: np.ndarray) -> Predictions:
    """Makes `units`, one name per window, the unit of statistics, not subjects."""
    if len(units) != len(predictions.label):
        raise ValueError(f"Got {len(units)} units, {len(predictions.label)} windows.")
    return predictions._replace(subject=np.asarray(units, np.str_))


def save_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Writes an `.npz` without pickles, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **predictions._asdict())
    write_atomic(path, buffer.getvalue())


def load_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Reads predictions that `save_predictions` wrote.

    Raises:
        InputError: If the file cannot be read, lacks a column, or holds values that
            are no probability or label.
    """
    path = Path(path)
    with open_npz(path, cure="Run the evaluation again.") as file:
        columns = {n: file.read(n) for n in Predictions._fields if n in file}
    wrong = [
        f"{name} is of type {column.dtype}"
        for name, column in columns.items()
        if column.dtype.kind not in _KINDS[name]
    ]
    if wrong or not np.isfinite(columns.get("start_s", 0)).all():
        what = wrong[0] if wrong else "a start is no finite number"
        raise InputError(f"{path} is damaged: {what}. Run the evaluation again.")
    missing = [name for name in Predictions._fields if name not in columns]
    if missing:
        raise InputError(
            f"{path} has no {', '.join(missing)}: it is no file of predictions; "
            "run the evaluation again."
        )
    try:
        return make_predictions(**columns)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged: {error} Run the evaluation again."
        ) from error
