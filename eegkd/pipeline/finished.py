"""Results of a finished training: weights and predictions, sealed by `done.json`.

Whoever opens a finished training, to judge, predict or export, compares its files with
the hashes in `done.json` first. Runs older than those hashes are opened unchecked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegkd.errors import InputError
from eegkd.evaluate.predictions import Predictions, save_predictions
from eegkd.host.sealed import bad_files, hash_file
from eegkd.pipeline.folder import read_json, write_json
from eegkd.train.weights import save_variables
from eegkd.typing import Variables

DONE = "done.json"
RESULTS = ("variables.safetensors", "val.npz", "test.npz")
WEIGHTS, VAL, TEST = RESULTS


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


def check_results(folder: Path) -> dict[str, Any]:
    """Returns the fields of `done.json`, after checking the files it names.

    Raises:
        InputError: If a file is missing or altered; the message names it.
    """
    done = read_json(folder / DONE)
    files = done.get("files", {}) if isinstance(done, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(x, str) for x in files.values()
    ):
        raise InputError(
            f"{folder / DONE} is damaged: it names no files. Delete {folder} and "
            "resume, to train this model again."
        )
    for name, what in bad_files(folder, files).items():
        words = "is gone" if what == "is missing" else "was altered or damaged"
        raise InputError(
            f"{folder / name} {words} since its training ended: put it back, or delete "
            f"{folder} and resume, to train this model again."
        )
    return done
