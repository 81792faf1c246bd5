"""Results of a finished training: weights and predictions, sealed by `done.json`.

Whoever opens a finished training, to judge, predict or export, compares its files with
the hashes in `done.json` first. Runs older than those hashes are opened unchecked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.predictions import (
    Predictions,
    load_predictions,
    save_predictions,
)
from eegkd.host.sealed import bad_files, hash_file
from eegkd.pipeline.folder import read_json, write_json
from eegkd.train.weights import save_variables
from eegkd.typing import Variables

DONE = "done.json"
RESULTS = ("variables.safetensors", "val.npz", "test.npz")
WEIGHTS, VAL, TEST = RESULTS


class Done(TypedDict):
    """Shape of `done.json`: facts of a training, and the hashes of its files."""

    seconds: float
    measured: NotRequired[dict[str, Any]]
    files: NotRequired[dict[str, str]]


def is_finished(folder: Path) -> bool:
    """Checks that a training has ended and its folder is complete."""
    return (folder / DONE).is_file()


def write_results(
    folder: Path,
    variables: Variables | None,
    val: Predictions | None,
    test: Predictions | None,
    facts: Mapping[str, Any],
) -> None:
    """Writes variables and predictions, then `done.json` with `facts` and hashes.

    A stage that is not judged has no predictions; one that is not trained has no
    variables.

    Raises:
        InputError: If the folder is read-only or full.
    """
    names = []
    if variables is not None:
        save_variables(folder / WEIGHTS, variables)
        names.append(WEIGHTS)
    for name, predictions in ((VAL, val), (TEST, test)):
        if predictions is not None:
            save_predictions(folder / name, predictions)
            names.append(name)
    hashes = {name: hash_file(folder / name) for name in names}
    write_json(folder / DONE, {**facts, "files": hashes})


def read_done(folder: Path) -> Done:
    """Reads `done.json`.

    Raises:
        InputError: If it is damaged, or names other files than a training's.
    """
    done: Done = read_json(folder / DONE, Done)
    others = sorted(set(done.get("files", {})) - set(RESULTS))
    if others:
        raise InputError(
            f"{folder / DONE} is damaged: it names {others[0]}. Delete {folder} and "
            "resume, to train this model again."
        )
    return done


def read_predictions(file: Path, store: WindowStore) -> Predictions:
    """Reads predictions of windows of a store.

    Raises:
        InputError: If they are damaged, or name windows that the store has not, or
            that lie elsewhere in it.
    """
    found = load_predictions(file)
    order = np.argsort(store.index["window_id"], kind="stable")
    known = store.index["window_id"][order]
    at = np.minimum(np.searchsorted(known, found.window_id), len(known) - 1)
    rows = order[at]
    same = known[at] == found.window_id
    same &= store.index["recording_id"][rows] == found.recording
    if not same.all() or len(np.unique(rows)) != len(rows):
        row = int(np.argmin(same))
        raise InputError(
            f"{file}: its row {row}, window_id {found.window_id[row]} of recording "
            f"{found.recording[row]}, is no window of the run's store, or is there "
            f"twice. Put the file back, or delete {file.parent} and resume, to train "
            "this model again."
        )
    return found


def check_results(folder: Path) -> Done:
    """Returns the fields of `done.json`, after checking the files it names.

    Raises:
        InputError: If a file is missing or altered; the message names it.
    """
    done = read_done(folder)
    for name, what in bad_files(folder, done.get("files", {})).items():
        words = "is gone" if what == "is missing" else "was altered or damaged"
        raise InputError(
            f"{folder / name} {words} since its training ended: put it back, or delete "
            f"{folder} and resume, to train this model again."
        )
    return done
