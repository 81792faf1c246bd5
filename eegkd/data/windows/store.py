"""Labelled windows, on disk or in memory.

On disk a store is a folder of `signal.npy`, `index.npz` and `manifest.json`. It is
written under another name and renamed when complete: `WindowStore.open` never sees a
part of one.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from eegkd.data.windows.files import (
    CURE,
    check_finite,
    complete_index,
    complete_manifest,
    count_windows,
    damaged,
    read_manifest,
    write_files,
    wrong_index,
)
from eegkd.errors import InputError, quoted
from eegkd.host.arrays import open_npy, open_npz
from eegkd.host.sealed import Verify, bad_files, hash_arrays, sealed


class Store(Protocol):
    """Rows to make batches of: windows here, dialogues or others elsewhere.

    Attributes:
        index: Columns with one value per row, as a window store's.
        manifest: What the rows are.
        fingerprint: Hash over all of it.
    """

    @property
    def index(self) -> Mapping[str, np.ndarray]: ...  # noqa: D102

    @property
    def manifest(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Reads some rows: what a batch begins with."""
        ...


class Subjects(NamedTuple):
    """Subject of each window: `names[codes[row]]`."""

    codes: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class WindowStore:
    """Windows of one corpus, cut and preprocessed one way.

    Attributes:
        signal: `f32[n, c, t]`, memory-mapped where the store lies on disk.
        index: `window_id recording_id subject session start_s label on_grid`, arrays
            of n; `label` is an int (-1 unlabelled), or a 0/1 row of k.
        manifest: Facts of the windows: corpus, classes, channels, preprocessing and
            its hash, counts, recordings with their events, source file hashes.
        path: Folder; None in memory.
        measures: `f32[n, m]`, numbers of each window that a system asked for.
    """

    signal: np.ndarray
    index: Mapping[str, np.ndarray]
    manifest: Mapping[str, Any]
    path: Path | None = None
    measures: np.ndarray | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], verify: Verify = "once"
    ) -> "WindowStore":
        """Opens a finished store; checks its record, and every file by its hash.

        Args:
            path: Folder of the store.
            verify: "once" reads every file whole when this process first opens it
                (about a second for 1 GB), and again only where it has changed since.
                "size" leaves out the content of `signal.npy`: for a worker of a process
                that has compared it, or where no window is read.

        Raises:
            InputError: If it is missing, unfinished, damaged or altered; the message
                names the file and the field.
        """
        folder = Path(path).absolute()
        manifest = read_manifest(folder)
        files = manifest["files"]
        bad = bad_files(folder, files, verify)
        bad = bad or bad_files(folder, {"index.npz": files["index.npz"]}, "once")
        for name, what in bad.items():
            raise damaged(folder, name, what)
        with open_npz(folder / "index.npz", cure=CURE) as arrays:
            index = {name: arrays.read(name) for name in arrays}
        signal = open_npy(folder / "signal.npy", cure=CURE)
        if list(signal.shape) != manifest["shape"] or signal.dtype != np.float32:
            found = f"{signal.dtype}{list(signal.shape)}"
            raise damaged(folder, "shape", f"is {manifest['shape']}, signal is {found}")
        if wrong := wrong_index(index, len(signal), len(manifest["classes"])):
            raise damaged(folder, "index.npz", wrong)
        if count_windows(index, manifest["classes"]) != manifest["counts"]:
            raise damaged(folder, "counts", "does not match index.npz")
        return cls(signal, index, manifest, folder)

    @classmethod
    def from_arrays(
        cls,
        path: str | os.PathLike[str] | None,
        signal: np.ndarray,
        index: Mapping[str, Any],
        manifest: Mapping[str, Any],
    ) -> "WindowStore":
        """Makes a store of arrays, in memory (`path` None) or on disk.

        Args:
            path: Folder, or None.
            signal: `[n, c, t]`.
            index: At least `recording_id`, `subject`, `start_s` and `label`;
                `window_id` is 0..n-1, `session` "" and `on_grid` True if absent.
            manifest: At least `corpus`, `classes`, `channels`, `rate`, `window_s`.
        """
        signal = np.ascontiguousarray(signal, dtype=np.float32)
        index = complete_index(index, len(signal))
        manifest = complete_manifest(manifest, index, signal.shape)
        if path is not None:
            return write_store(path, [signal], index, manifest)
        check_finite(signal, index)
        # No files, but the fingerprint has to cover the arrays.
        sha256 = hash_arrays(signal, *(index[name] for name in sorted(index)))
        files = {"arrays": {"bytes": signal.nbytes, "sha256": sha256}}
        return cls(signal, index, sealed({**manifest, "files": files}))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickles a store on disk as its path: a worker maps the same file."""
        if self.path is not None:
            return _reopen, (self.path, self.measures)
        return WindowStore, (
            self.signal, self.index, self.manifest, None, self.measures
        )  # fmt: skip

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Reads some rows, as the start of a batch."""
        own = {} if self.measures is None else {"measures": self.measures[rows]}
        return {"signal": np.asarray(self.signal[rows])} | own

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.signal)

    @property
    def labels(self) -> np.ndarray:
        """`i32[n]` with -1 for unlabelled, or `f32[n, k]` for several labels."""
        return self.index["label"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; a label is an index into them."""
        return tuple(self.manifest["classes"])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.manifest["classes"])

    @property
    def fingerprint(self) -> str:
        """Hash over the manifest, and so over every file and setting."""
        return self.manifest["sha256"]

    @functools.cached_property
    def subjects(self) -> Subjects:
        """One integer code per window, and the names they stand for (sorted)."""
        names, codes = np.unique(self.index["subject"], return_inverse=True)
        return Subjects(codes.astype(np.int32), tuple(names.tolist()))

    @functools.cached_property
    def student_labels(self) -> np.ndarray:
        """The labels a student may use: -1 outside `student_subjects`, if stated."""
        allowed = self.manifest.get("student_subjects")
        if allowed is None:
            return self.labels
        mine = np.isin(self.index["subject"], list(allowed))
        keep = mine if self.labels.ndim == 1 else mine[:, None]
        return np.where(keep, self.labels, -1).astype(self.labels.dtype)

    @functools.cached_property
    def time_order(self) -> np.ndarray:
        """All rows, by recording (in order of first appearance), then by start."""
        _, first, codes = np.unique(
            self.index["recording_id"], return_index=True, return_inverse=True
        )
        return np.lexsort((self.index["start_s"], first[codes]))

    def rows(
        self, subjects: Sequence[str] | None = None, *, on_grid: bool | None = None
    ) -> np.ndarray:
        """Rows of these subjects (None: all), in time order within a recording.

        Raises:
            InputError: If a subject is not in the store.
        """
        keep = np.ones(len(self), bool)
        if subjects is not None:
            unknown = sorted(set(subjects) - set(self.subjects.names))
            if unknown:
                raise InputError(
                    f"No subject {unknown[0]!r} in the {self.manifest['corpus']} store;"
                    f" it has {', '.join(self.subjects.names)}."
                )
            keep &= np.isin(self.index["subject"], list(subjects))
        if on_grid is not None:
            keep &= self.index["on_grid"] == on_grid
        return self.time_order[keep[self.time_order]]

    def recording_rows(
        self, recording_id: str, *, on_grid: bool | None = None
    ) -> np.ndarray:
        """Rows of one recording, in time order."""
        keep = self.index["recording_id"] == recording_id
        if on_grid is not None:
            keep &= self.index["on_grid"] == on_grid
        rows = np.flatnonzero(keep)
        return rows[np.argsort(self.index["start_s"][rows], kind="stable")]


def _reopen(path: Path, measures: np.ndarray | None) -> WindowStore:
    return dataclasses.replace(WindowStore.open(path, "size"), measures=measures)


def check_trainable(store: WindowStore) -> None:
    """Refuses a store without two classes.

    Raises:
        InputError: If fewer than two classes have windows.
    """
    where = store.path or f"The {store.manifest['corpus']} store"
    if store.labels.ndim > 1:
        _check_rows_of_labels(store, where)
        return
    counts = store.manifest["counts"]["classes"]
    present = [name for name, count in counts.items() if count]
    if len(present) < 2:
        only = f"only class {present[0]!r}" if present else "no labelled windows"
        of = f" of {quoted(store.classes, 9, '{}')}" if store.classes else ""
        raise InputError(
            f"{where}: {only}{of}; training needs two classes. Check the labels (and "
            "their names; in a folder of your own, labels.csv) and --data.window_s."
        )


def _check_rows_of_labels(store: WindowStore, where: Any) -> None:
    if not store.manifest.get("multilabel"):
        raise InputError(
            f"{where} has several labels a window, and was written before they could "
            "be trained on. Prepare it again."
        )
    both = (store.labels == 1).any(axis=0) & (store.labels == 0).any(axis=0)
    if not both.any():
        raise InputError(
            f"{where}: none of {', '.join(store.classes)} has a window that has it and "
            "one that has not; training needs both. Check the labels (and their names)."
        )


def write_store(
    path: str | os.PathLike[str],
    blocks: Iterable[np.ndarray],
    index: Mapping[str, Any],
    manifest: Mapping[str, Any],
    beside: Mapping[str, bytes] = {},
) -> WindowStore:
    """Writes a store block by block (see `write_files`) and opens it."""
    return WindowStore.open(write_files(path, blocks, index, manifest, beside))
