"""The files of a teacher cache: their names, and checks that they are whole.

    manifest.json             origin of the outputs, form of storage, every hash
    window_id.npy             i64[m], in ascending order
    teacher.tokens/00000.npy  a shard: rows of window 0 view 0, window 0 view 1, ...
    teacher.tokens.scale/...  of int8
    teacher.tokens.basis.npz  of a low rank

A manifest is written after every shard; only a finished one says "complete".
"""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from eegkd.cache.forms import Basis, TensorForm, form_of
from eegkd.errors import InputError, output_errors
from eegkd.host.arrays import open_npy, open_npz
from eegkd.host.atomic import sync, write_atomic
from eegkd.host.sealed import (
    FileRecord,
    Verify,
    bad_files,
    first_difference,
    hash_json,
    read_sealed,
    seal,
)

VERSION = 1
MANIFEST = "manifest.json"
WINDOWS = "window_id.npy"
_PROBE_BYTES = 1 << 25
CURE = "Delete the folder to fill it anew."


class Layout(NamedTuple):
    """Division of rows into shards; row = window's place * num_views + view."""

    num_windows: int
    num_views: int
    shard_rows: int

    @property
    def num_rows(self) -> int:
        """Number of rows of all windows and views."""
        return self.num_windows * self.num_views

    @property
    def num_shards(self) -> int:
        """Number of shards of each tensor."""
        return -(-self.num_rows // self.shard_rows)

    def rows(self, shard: int) -> np.ndarray:
        """Rows of one shard."""
        start = shard * self.shard_rows
        return np.arange(start, min(start + self.shard_rows, self.num_rows))


class _Fields(TypedDict):
    """Origin of a cache's outputs, as far as every cache has it."""

    form: dict[str, TensorForm]


class _Layout(TypedDict):
    """A `Layout` in a manifest."""

    num_windows: int
    num_views: int
    shard_rows: int


class _Manifest(TypedDict):
    """Shape of a cache's manifest."""

    complete: bool
    fields: _Fields
    layout: _Layout
    errors: dict[str, Any]
    files: dict[str, FileRecord]


class Speed(NamedTuple):
    """Bytes per second of a folder's disk."""

    write: float
    read: float


def shard_file(tensor: str, suffix: str, shard: int) -> str:
    """Returns the path of a shard, relative to the cache's folder."""
    return f"{tensor}{suffix}/{shard:05d}.npy"


def basis_file(tensor: str) -> str:
    """Returns the file name of a tensor's principal axes."""
    return f"{tensor}.basis.npz"


def shard_files(layout: Layout, forms: Mapping[str, TensorForm]) -> Iterator[str]:
    """Lists every shard that a whole cache has."""
    for name, form in forms.items():
        for suffix in form.parts:
            for shard in range(layout.num_shards):
                yield shard_file(name, suffix, shard)


def write_array(file: Path, array: np.ndarray) -> dict[str, Any]:
    """Writes a `.npy` file whole or not at all; returns its size and hash."""
    return _write(file, lambda stream: np.save(stream, array, allow_pickle=False))


def write_basis(file: Path, basis: Basis) -> dict[str, Any]:
    """Writes principal axes; returns the file's size and hash."""
    return _write(file, lambda stream: np.savez(stream, **basis._asdict()))


def read_basis(file: Path) -> Basis:
    """Reads principal axes."""
    with open_npz(file, cure=CURE) as arrays:
        return Basis(arrays.read("mean"), arrays.read("axes"))


def read_ids(file: Path) -> np.ndarray:
    """Reads the ids of a cache's windows."""
    return np.array(open_npy(file, cure=CURE))


def _write(file: Path, save: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    save(stream)
    data = stream.getbuffer()
    write_atomic(file, data)  # type: ignore[arg-type]
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, with its own hash, whole or not at all."""
    write_atomic(folder / MANIFEST, seal(manifest))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a whole or half-filled cache.

    Raises:
        InputError: If there is none, or it was altered.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise InputError(f"{folder} is no teacher cache (no {MANIFEST}).")
    return read_sealed(
        file, "Teacher cache", version=VERSION, cure=CURE, shape=_Manifest
    )


def layout_of(manifest: Mapping[str, Any]) -> Layout:
    """Reads the layout of a cache from its manifest."""
    return Layout(**manifest["layout"])


def forms_of(manifest: Mapping[str, Any]) -> dict[str, TensorForm]:
    """Reads the storage forms of a cache's tensors from its manifest."""
    return {name: form_of(entry) for name, entry in manifest["fields"]["form"].items()}


def key_of(fields: Mapping[str, Any]) -> str:
    """Computes the hash of the fields that a cache's numbers depend on."""
    return hash_json(fields)


def difference(found: Any, wanted: Any) -> str | None:
    """Formats the first field in which two keys differ, with both values."""
    differing = first_difference(found, wanted)
    if differing is None:
        return None
    name, there, here = differing
    return f"`{name}` is {_short(there)} there and {_short(here)} here"


def check_fields(folder: Path, found: Any, wanted: Any) -> None:
    """Checks that a cache has the wanted origin.

    Raises:
        InputError: Naming the first field that differs.
    """
    said = difference(found, json.loads(json.dumps(wanted)))
    if said is not None:
        raise InputError(
            f"The teacher cache {folder} is of something else: {said}. Delete it to "
            "fill it anew, use the settings it was made with, or give another "
            "--cache.folder."
        )


def damaged_files(
    folder: Path, files: Mapping[str, Any], verify: Verify = "sha256"
) -> tuple[dict[str, str], float]:
    """Finds files that differ from their record.

    Args:
        folder: Folder of the cache.
        files: Name -> `bytes` and `sha256`.
        verify: "size" reads no content.

    Returns:
        Name -> what is wrong; and the bytes per second that were read (0: none).
    """
    start = time.perf_counter()
    bad = bad_files(folder, files, verify)
    seconds = max(time.perf_counter() - start, 1e-9)
    return bad, 0.0 if verify == "size" else num_bytes(files) / seconds


def num_bytes(files: Mapping[str, Any]) -> int:
    """Counts the bytes of files that a manifest names."""
    return sum(entry["bytes"] for entry in files.values())


def measure_speed(folder: Path) -> Speed:
    """Writes and reads 32 MiB in a folder, past the system's own cache if it can.

    Raises:
        InputError: If the folder cannot be written.
    """
    data = np.random.default_rng(0).bytes(_PROBE_BYTES)
    file = folder / ".speed.part"
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            start = time.perf_counter()
            file.write_bytes(data)
            sync(file)
            written = time.perf_counter()
            with file.open("rb", buffering=0) as stream:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                begun = time.perf_counter()
                while stream.read(1 << 22):
                    pass
                read = time.perf_counter()
        finally:
            file.unlink(missing_ok=True)
    return Speed(_PROBE_BYTES / (written - start), _PROBE_BYTES / (read - begun))


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value)
    # The first figures of a hash are enough to tell two apart.
    return text[:12] if len(text) == 64 and " " not in text else text[:80]
