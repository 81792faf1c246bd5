"""The three files of a window store: how they are filled in, written and checked."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from eegkd.errors import InputError, output_errors
from eegkd.host.atomic import remove_own, sync_tree
from eegkd.host.sealed import (
    FileRecord,
    hash_file,
    hash_json,
    note_whole,
    read_sealed,
    seal,
)

VERSION = 1
MANIFEST = "manifest.json"
WHAT, CURE = "Window store", "Delete the folder and prepare again."
REQUIRED = ("corpus", "classes", "channels", "rate", "window_s")
DEFAULTS: Mapping[str, Any] = {
    "overlap": 0.0,
    "units": [],
    "has_subjects": True,
    "preprocessing": {},
    "sources": {},
    "recordings": {},
    "licence": "",
}


_KINDS = {
    **{"window_id": "i", "recording_id": "U", "subject": "U", "session": "U"},
    **{"start_s": "f", "label": "if", "on_grid": "b"},
}
"""Kinds of an index's columns."""


class Manifest(TypedDict):
    """Shape of `manifest.json`, as far as all stores have it."""

    corpus: str
    classes: list[str]
    background: NotRequired[str | None]
    channels: list[str]
    units: list[Any]
    rate: float
    window_s: float
    overlap: float
    shape: list[int]
    has_subjects: bool
    licence: str | None
    preprocessing: dict[str, Any]
    counts: dict[str, Any]
    recordings: dict[str, dict[str, Any]]
    sources: dict[str, Any]
    files: dict[str, FileRecord]
    student_subjects: NotRequired[list[str]]
    multilabel: NotRequired[bool]


def write_files(
    path: str | os.PathLike[str],
    blocks: Iterable[np.ndarray],
    index: Mapping[str, Any],
    manifest: Mapping[str, Any],
    beside: Mapping[str, bytes] = {},
) -> Path:
    """Writes a store from blocks of windows, one block in memory at a time.

    Args:
        path: Folder; must be empty or absent.
        blocks: Arrays `[n_i, c, t]`, in the order of the index.
        index: As in `WindowStore.from_arrays`.
        manifest: As in `WindowStore.from_arrays`.
        beside: Further files, by name, that the fingerprint does not cover.

    Raises:
        InputError: If the folder is taken, cannot be written, or is full.
    """
    folder = Path(path).absolute()
    index = complete_index(index, len(index["label"]))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; choose another --out.")
    partial = folder.with_name(folder.name + ".writing")
    own = {"signal.npy", "index.npz", MANIFEST}.__contains__
    with output_errors(folder):
        remove_own(partial, own)  # Leftovers of a process that was killed.
        if partial.exists():
            raise InputError(
                f"{partial} is not of this library, and a store is written under that "
                "name. Move it away, or choose another --out."
            )
        try:
            partial.mkdir(parents=True)
            shape, digest = _write_signal(partial / "signal.npy", blocks, index)
            np.savez(partial / "index.npz", **dict[str, Any](index))
            hashes = {
                "signal.npy": digest,
                "index.npz": hash_file(partial / "index.npz"),
            }
            files = {
                name: {"bytes": (partial / name).stat().st_size, "sha256": sha}
                for name, sha in hashes.items()
            }
            whole = complete_manifest(manifest, index, shape) | {"files": files}
            (partial / MANIFEST).write_text(seal(whole), encoding="utf-8")
            for name, content in beside.items():
                (partial / name).write_bytes(content)
            sync_tree(partial)
            os.replace(partial, folder)
            # The hash was taken while writing: no need to read the file again.
            note_whole(folder / "signal.npy", digest)
        finally:
            remove_own(partial, own)
    return folder


def complete_index(index: Mapping[str, Any], num: int) -> dict[str, np.ndarray]:
    """Returns the index with defaults filled in and every dtype settled.

    Raises:
        InputError: If there are no windows.
        ValueError: If a column is missing or has another length.
    """
    if num == 0:
        raise InputError("There are no windows to store: check --data.window_s.")
    filled = {
        "window_id": np.arange(num),
        "session": np.full(num, ""),
        "on_grid": np.ones(num, bool),
        **index,
    }
    label = np.asarray(filled["label"])
    kinds = {
        "window_id": np.int64,
        "recording_id": str,
        "subject": str,
        "session": str,
        "start_s": np.float64,
        "label": np.int32 if label.ndim == 1 else np.float32,
        "on_grid": bool,
    }
    whole = {name: np.asarray(filled[name], kind) for name, kind in kinds.items()}
    for name, column in whole.items():
        if len(column) != num:
            raise ValueError(f"Index column {name!r} has {len(column)} rows, not {num}")
    return whole


def wrong_index(index: Mapping[str, np.ndarray], num: int, num_classes: int) -> str:
    """Returns what is wrong with an index that was read, or ""."""
    for name, kinds in _KINDS.items():
        if name not in index:
            return f"has no column {name}"
        column = index[name]
        if column.shape[:1] != (num,) or column.dtype.kind not in kinds:
            return f"{name} is {column.dtype}{list(column.shape)}, of {num} windows"
    label = index["label"]
    if label.ndim > 1 and label.shape != (num, num_classes):
        return f"label is of shape {list(label.shape)}, of {num_classes} classes"
    most = 1 if label.ndim > 1 else num_classes - 1
    if not ((label >= -1) & (label <= most)).all():
        return f"holds a label that is not between -1 and {most}"
    if not np.isfinite(index["start_s"]).all():
        return "holds a start that is no finite number"
    return ""


def complete_manifest(
    manifest: Mapping[str, Any], index: Mapping[str, np.ndarray], shape: Sequence[int]
) -> dict[str, Any]:
    """Returns the manifest with defaults, counts, shape and hashes filled in.

    Raises:
        ValueError: If a required field is missing or contradicts the arrays.
    """
    missing = [name for name in REQUIRED if name not in manifest]
    if missing:
        raise ValueError(f"The manifest lacks {', '.join(missing)}.")
    whole = json.loads(json.dumps({**DEFAULTS, **manifest}))
    if len(whole["channels"]) != shape[1]:
        raise ValueError(f"{len(whole['channels'])} channel names, {shape[1]} channels")
    labels = index["label"]
    if labels.ndim > 1:
        if (
            labels.shape[1] != len(whole["classes"])
            or not np.isin(labels, (-1, 0, 1)).all()
        ):
            raise ValueError(
                f"Labels are rows of {len(whole['classes'])} values of -1, 0 or 1, one "
                f"per class; got {labels.shape[1]} values."
            )
        whole["multilabel"] = True
    elif labels.max() >= len(whole["classes"]):
        raise ValueError(f"Label {labels.max()} but classes {whole['classes']}")
    return whole | {
        "version": VERSION,
        "shape": [int(size) for size in shape],
        "counts": count_windows(index, whole["classes"]),
        "preprocessing_hash": hash_json(whole["preprocessing"]),
    }


def _write_signal(
    path: Path, blocks: Iterable[np.ndarray], index: Mapping[str, np.ndarray]
) -> tuple[tuple[int, ...], str]:
    """Streams blocks into a `.npy` file; returns its shape and hash."""
    num, done, digest = len(index["label"]), 0, hashlib.sha256()
    shape: tuple[int, ...] = ()
    with open(path, "wb") as file:
        for block in blocks:
            block = np.ascontiguousarray(block, dtype="<f4")
            if not shape:
                shape = (num, *block.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.flush()
                digest.update(path.read_bytes())
            if block.shape[1:] != shape[1:]:
                raise ValueError(f"Windows of {block.shape[1:]} after {shape[1:]}.")
            rows = slice(done, done + len(block))
            check_finite(block, {key: value[rows] for key, value in index.items()})
            data = block.data.cast("B")
            file.write(data)
            digest.update(data)
            done += len(block)
    if done != num:
        raise ValueError(f"{done} windows for an index of {num}.")
    return shape, digest.hexdigest()


def check_finite(signal: np.ndarray, index: Mapping[str, np.ndarray]) -> None:
    """Refuses NaN and infinity, naming the recording and the time."""
    # A sum is finite only where every sample is, and needs no temporary array.
    good = np.isfinite(signal.sum(axis=(1, 2), dtype=np.float64))
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(
            f"Recording {index['recording_id'][row]}: NaN or infinite samples in the "
            f"window at {index['start_s'][row]:g} s. Repair or leave out the recording."
        )


def count_windows(
    index: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, Any]:
    """Counts windows per class, and per class within each subject.

    With several labels a window counts for each class that it has, and is unlabelled
    where nobody was asked for any.
    """
    labels = index["label"]
    if labels.ndim == 1:
        rows = np.flatnonzero((labels >= 0) & (labels < len(classes)))
        columns, unlabelled = labels[rows], labels < 0
    else:
        (rows, columns), unlabelled = np.nonzero(labels > 0), (labels < 0).all(axis=1)
    names, codes = np.unique(index["subject"], return_inverse=True)
    table = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(table, (codes[rows], columns), 1)
    return {
        "classes": dict(zip(classes, table.sum(axis=0).tolist(), strict=True)),
        "unlabelled": int(unlabelled.sum()),
        "on_grid": int(index["on_grid"].sum()),
        "subjects": {
            str(name): dict(zip(classes, row, strict=True))
            for name, row in zip(names, table.tolist(), strict=True)
        },
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads `manifest.json` and checks its version and hash."""
    file = folder / MANIFEST
    if not file.is_file():
        begun = any(
            folder.with_name(folder.name + end).exists()
            for end in (".partial", ".writing")
        )
        cure = (
            "it was not finished: run the same prepare command again to resume"
            if begun
            else "make one with `eegkd prepare --out`"
        )
        raise InputError(f"{folder} is no window store (no {MANIFEST}); {cure}.")
    return read_sealed(
        file, WHAT, version=VERSION, cure=CURE, check=_wrong_field, shape=Manifest
    )


def _wrong_field(manifest: Mapping[str, Any]) -> str:
    for name in (*REQUIRED, *DEFAULTS, "shape", "counts", "files", "sha256"):
        if name not in manifest:
            return f"{name} is missing from {MANIFEST}"
    files = manifest["files"]
    if isinstance(files, dict) and not {"signal.npy", "index.npz"} <= set(files):
        return "files does not name signal.npy and index.npz"
    if hash_json(manifest["preprocessing"]) != manifest.get("preprocessing_hash"):
        return "preprocessing does not match preprocessing_hash"
    return ""


def damaged(folder: Path, field: str, what: str) -> InputError:
    """Makes the error of an altered store."""
    return InputError(f"{WHAT} {folder}: {field} {what}. {CURE}")
