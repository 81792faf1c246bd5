"""The run folder: options, results, and how to repeat them."""

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from eegkd.config import PLACEMENT
from eegkd.errors import InputError, output_errors
from eegkd.host.atomic import remove_parts, write_atomic
from eegkd.host.json_file import parse_json, read_text
from eegkd.host.paths import in_full
from eegkd.host.sealed import first_difference
from eegkd.host.shapes import fit

PACKAGES = ("eegkd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy",
            "scipy", "scikit-learn", "mne", "wfdb", "timescoring")  # fmt: skip
# What config.json must have, to be a run's.
RECORD = ("system", "run", "store", "num_folds", "variants")
WRITTEN = ("splits.json", "results.json", "summary.json", "report.html",
           "metrics.jsonl", "measures.npz", "teacher.json", "fold0")  # fmt: skip
"""What else lies in a run folder."""
_logger = logging.getLogger(__name__)


class Weights(TypedDict):
    """Published weights that a stage started from: their model, and hash by file."""

    model: str
    files: dict[str, str]


class Windows(TypedDict, total=False):
    """Store of a run's windows."""

    path: str
    fingerprint: str


class Record(TypedDict):
    """Shape of a run's config.json."""

    system: str
    run: dict[str, Any]
    store: Windows
    num_folds: int
    variants: list[str]
    registered: NotRequired[list[str]]
    left_out: NotRequired[dict[str, str]]
    terms: NotRequired[dict[str, dict[str, Any]]]
    versions: NotRequired[dict[str, str]]
    weights: NotRequired[dict[str, dict[str, Weights]]]


class Part(TypedDict):
    """A part of a fold in splits.json: its windows, and its subjects or recordings."""

    windows: int
    groups: list[str]


class Parts(TypedDict):
    """A fold in splits.json."""

    train: Part


class Splits(TypedDict):
    """Shape of splits.json, as far as it is read."""

    unit: str
    leaks_subjects: bool
    folds: list[Parts]


class Score(TypedDict):
    """Shape of a row of results.json, as far as it is read."""

    model: str
    metric: str


class Costs(TypedDict):
    """Shape of summary.json, as far as it is read."""

    expected_s: float
    spent_s: float
    notes: NotRequired[list[str]]


def to_json(value: Any) -> Any:
    """Converts configs, arrays and numbers to JSON values; NaN becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically.

    Raises:
        InputError: If the folder is read-only or full.
    """
    write_atomic(path, json.dumps(to_json(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path, shape: Any = Any) -> Any:
    """Reads a JSON file of a run folder.

    Args:
        path: The file.
        shape: Shape of its content, for `shapes.fit`.

    Raises:
        InputError: If it is missing, damaged, or of another shape.
    """
    if not path.is_file():
        raise InputError(f"{path.parent} is no run folder: it has no {path.name}.")
    try:
        return fit(shape, parse_json(read_text(path)))
    except ValueError as error:
        raise InputError(
            f"{path}: damaged JSON ({error}). Put a copy of it back, or train anew "
            "into another --out."
        ) from error


def read_record(folder: Path) -> dict[str, Any]:
    """Reads the fields of a run's config.json.

    Raises:
        InputError: If the folder holds no run.
    """
    path = folder / "config.json"
    if not path.is_file() and any(folder.glob("store*")):
        raise InputError(
            f"{folder} was stopped while its recordings were prepared, before there "
            "was a run: give the command that began it once more."
        )
    record = read_json(path)
    lacks = _lacking(record)
    if lacks:
        raise InputError(
            f"{folder} is no run folder: {path} has no `{lacks}` of a run."
        )
    return read_json(path, Record)


def read_copy(path: Path) -> dict[str, Any]:
    """Reads a run's config.json, wherever it lies and whatever it is called.

    Raises:
        InputError: If the file is none.
    """
    record = read_json(path)
    lacks = _lacking(record)
    if lacks:
        raise InputError(
            f"{path} has no `{lacks}` of a run: name the config.json of a run folder."
        )
    return read_json(path, Record)


def _lacking(record: Any) -> str:
    """Returns the first field of a run that a record lacks, or ""."""
    known = record if isinstance(record, dict) else {}
    return next((name for name in RECORD if name not in known), "")


def open_run(folder: Path, record: dict[str, Any]) -> None:
    """Makes the run folder, or continues one that was begun in the same way.

    The caller is the folder's sole writer.

    Raises:
        InputError: If the folder holds a run of another system, other options or
            other data.
    """
    path = folder / "config.json"
    if not path.is_file():
        taken = [name for name in WRITTEN if (folder / name).exists()]
        if taken:
            raise InputError(
                f"{folder} holds {taken[0]} and no config.json of a run, and its files "
                "would be overwritten. Choose another --out."
            )
        write_json(path, record | {"versions": versions()})
        return
    remove_parts(folder)
    old = read_record(folder)
    # Options that are newer than the run have their defaults there. Paths of an older
    # one may be seen from the folder that it was begun in, which is then this one.
    run = in_full(from_json(type(record["run"]), old["run"], path))
    _check_same(folder, old | {"run": to_json(run)}, to_json(record))
    changed = [
        f"{name} {was} (now {now})"
        for name, now in versions().items()
        if (was := old.get("versions", {}).get(name, now)) != now
    ]
    if changed:
        _logger.warning(
            "%s was begun with %s: its last digits may differ from those of a run "
            "that never stopped.",
            folder,
            ", ".join(changed),
        )


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Checks that a run is continued with its own options; absent fields match any."""
    cure = (
        "Choose another --out, or resume it as it is with "
        f"`eegkd distill --resume {folder}`."
    )
    for key in sorted(old["run"].keys() | new["run"].keys()):
        was, now = old["run"].get(key), new["run"].get(key)
        if key == "train":
            was, now = _without_placement(was), _without_placement(now)
        # A folder may have been moved; the store's content, which says all of the
        # signal, is compared below.
        if was != now and key not in ("out", "store", "signal"):
            raise InputError(
                f"{folder} holds a run with another `{key}`: "
                f"{describe_difference(was, now)} {cure}"
            )
    if old["store"].get("fingerprint") != new["store"]["fingerprint"]:
        raise InputError(
            f"{folder} was begun on other windows than those of the store "
            f"{new['store']['path'] or 'in memory'}: its recordings, labels or "
            "preprocessing changed. Put the run's own store back, or choose another "
            "--out."
        )
    _check_weights(folder, old.get("weights", {}), new.get("weights", {}))
    for key in ("system", "num_folds", "variants", "terms"):
        was, now = old.get(key, new.get(key)), new.get(key)
        if was != now:
            raise InputError(
                f"{folder} holds a run with other {key}: "
                f"{describe_difference(was, now)} Choose another --out, or go on with "
                "the program that began it."
            )


def _check_weights(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Checks that the published weights are those that the run began with."""
    for name, stages in old.items():
        for stage, was in stages.items():
            now = new.get(name, {}).get(stage, {"files": {}})
            for file, sha256 in was["files"].items():
                if now["files"].get(file) != sha256:
                    raise InputError(
                        f"{folder} was begun with other weights of {was['model']} for "
                        f"its stage {stage}: {file} had the SHA-256 {sha256[:16]}..., "
                        f"now {str(now['files'].get(file, 'is missing'))[:16]}. Put "
                        "that file back, or choose another --out."
                    )


def _without_placement(train: dict[str, Any]) -> dict[str, Any]:
    """Drops placement options, which do not change the numbers."""
    return {key: value for key, value in train.items() if key not in PLACEMENT}


def describe_difference(was: Any, now: Any) -> str:
    """Formats what two values of one option differ in, as a sentence."""
    name, old, new = first_difference(was, now, depth=1) or ("", was, now)
    return f"{name or 'it'} was {old}, now {new}."


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that appends a row to a file of JSON lines.

    A last line that a kill or a full disk has cut is dropped first. Nothing is lost
    with it: rows are written before the checkpoint that holds them, so the resumed
    training writes that row again.

    Raises:
        InputError: If the disk is full or the folder read-only; the row may be cut.
    """
    with output_errors(path.parent):
        _drop_cut_line(path)
        file = path.open("ab", buffering=0)
    with file:

        def append(row: Mapping[str, Any]) -> None:
            left = memoryview((json.dumps(dict(row)) + "\n").encode())
            with output_errors(path.parent):
                while left:
                    left = left[file.write(left) :]

        yield append


def _drop_cut_line(path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        _logger.warning("%s: its last line was cut, and is written anew.", path)
        os.truncate(path, whole)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a file of JSON lines; warns of damaged ones."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            _logger.warning("%s: line %d is damaged and left out.", path, number)
    return rows


def versions() -> dict[str, str]:
    """Lists the versions that a repetition needs."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def from_json(cls: type, value: Any, source: str | Path = "config.json") -> Any:
    """Rebuilds a frozen config from what `to_json` made of it.

    Args:
        cls: Class of the config.
        value: Its fields.
        source: File that they are from, for messages.

    Raises:
        InputError: If a field is unknown, of another type or out of range: the file
            was altered, or is of another version.
    """
    try:
        return fit(cls, value)
    except ValueError as error:
        raise InputError(
            f"{source}: the options of the run cannot be read ({error}). Put a copy of "
            "the file back, or go on with the version of eegkd that wrote it."
        ) from error
