"""Reads a teacher cache: gathers a batch's rows from memory-mapped shards."""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.cache.files import (
    CURE,
    WINDOWS,
    Layout,
    basis_file,
    check_fields,
    damaged_files,
    forms_of,
    layout_of,
    num_bytes,
    read_basis,
    read_ids,
    read_manifest,
    shard_file,
)
from eegkd.cache.forms import Basis, TensorForm, decode
from eegkd.errors import InputError
from eegkd.host.arrays import open_npy
from eegkd.host.sealed import Verify

# A mapping holds a file descriptor, of which a process often has 1,024.
_OPEN_SHARDS = 256


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedTensor:
    """One tensor of a cache on disk; pickled by name, so a worker maps it again."""

    folder: Path
    name: str
    form: TensorForm
    layout: Layout

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows, decoded to `f32[b, *form.read_shape]`.

        Raises:
            InputError: If a shard was deleted or cut since the cache was opened.
        """
        places = _by_shard(np.asarray(rows), self.layout.shard_rows)
        parts = {
            suffix: self._gather(suffix, dtype, shape, len(rows), places)
            for suffix, (dtype, shape) in self.form.parts.items()
        }
        return decode(parts, self.form, self._basis())

    def _gather(
        self,
        suffix: str,
        dtype: np.dtype,
        shape: tuple[int, ...],
        num: int,
        places: "list[_Places]",
    ) -> np.ndarray:
        out = np.empty((num, *shape), dtype)
        for place in places:
            # pathlib would cost more than a small row's copy.
            file = f"{self.folder}/{shard_file(self.name, suffix, place.shard)}"
            rows = len(self.layout.rows(place.shard))
            mapped = _mapped(file, (rows, *shape), dtype)
            if isinstance(place.into, slice):
                np.take(mapped, place.local, axis=0, out=out, mode="clip")
            else:
                pairs = zip(place.into.tolist(), place.local.tolist(), strict=True)
                for into, local in pairs:
                    out[into] = mapped[local]
        return out

    def _basis(self) -> Basis | None:
        if not self.form.rank:
            return None
        file = self.folder / basis_file(self.name)
        return _known_basis(file, file.stat().st_mtime_ns)


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherTensor:
    """A teacher's tensor in the order of a store's rows.

    Attributes:
        source: `[m * num_views, ...]`, in memory or on disk.
        index: `i64[n]`: a store row's place among the m; -1 where there is none.
        num_views: Views of each window, side by side.
    """

    source: np.ndarray | ShardedTensor
    index: np.ndarray
    num_views: int = 1

    def gather(self, rows: np.ndarray, view: np.ndarray | int = 0) -> np.ndarray:
        """Reads one view of some store rows.

        Raises:
            ValueError: If a row is not there.
        """
        places = self.index[rows]
        if len(places) and places.min() < 0:
            row = int(np.asarray(rows)[np.argmin(places)])
            raise ValueError(f"Store row {row} has no teacher output.")
        places = places * self.num_views + np.asarray(view) % self.num_views
        if isinstance(self.source, ShardedTensor):
            return self.source.take(places)
        return np.take(self.source, places, axis=0)

    def moved(self, source_rows: np.ndarray) -> "TeacherTensor":
        """Permutes rows: row i reads row `source_rows[i]`."""
        return dataclasses.replace(self, index=self.index[source_rows])

    def class_means(self, rows: np.ndarray, groups: np.ndarray) -> "TeacherTensor":
        """Replaces each of `rows` by the mean over its group's rows and all views.

        Args:
            rows: Store rows that are replaced.
            groups: A number per store row.
        """
        means, index = [], np.full(len(self.index), -1)
        for group in np.unique(groups[rows]):
            mine = rows[groups[rows] == group]
            total, count = 0.0, 0
            for view in range(self.num_views):
                for part in np.array_split(mine, -(-len(mine) // 256)):
                    values = self.gather(part, view)
                    total = total + values.sum(axis=0, dtype=np.float64)
                    count += len(values)
            index[mine] = len(means)
            means.append(np.asarray(total / count, np.float32))
        return TeacherTensor(np.stack(means), index)


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherCache:
    """A whole cache on disk, checked."""

    folder: Path
    manifest: Mapping[str, Any]
    read_speed: float = 0.0

    @property
    def window_ids(self) -> np.ndarray:
        """`i64[m]`, ascending."""
        return read_ids(self.folder / WINDOWS)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return num_bytes(self.manifest["files"])

    @property
    def errors(self) -> dict[str, dict[str, float]]:
        """Error of each tensor's form, measured on a sample."""
        return self.manifest["errors"]

    def tensors(self, window_ids: np.ndarray) -> dict[str, dict[str, TeacherTensor]]:
        """Returns stage name -> tensor name -> tensor in the order of `window_ids`."""
        index = match_windows(window_ids, self.window_ids)
        layout = layout_of(self.manifest)
        found: dict[str, dict[str, TeacherTensor]] = {}
        for name, form in forms_of(self.manifest).items():
            stage, _, key = name.partition(".")
            source = ShardedTensor(self.folder, name, form, layout)
            tensor = TeacherTensor(source, index, layout.num_views)
            found.setdefault(stage, {})[key] = tensor
        return found


def open_cache(
    folder: str | Path,
    *,
    fields: Mapping[str, Any] | None = None,
    verify: Verify = "sha256",
) -> TeacherCache:
    """Opens a finished cache.

    Args:
        folder: Folder of the cache.
        fields: Required origin of the outputs; None takes any.
        verify: sha256 reads every file once; size compares sizes alone.

    Raises:
        InputError: If it is unfinished, has another origin, or a file is missing, cut
            or altered; the message names it.
    """
    folder = Path(folder).absolute()
    manifest = read_manifest(folder)
    if fields is not None:
        check_fields(folder, manifest["fields"], fields)
    if not manifest["complete"]:
        raise InputError(
            f"The teacher cache {folder} is half filled: run the command that fills it "
            "again to resume."
        )
    bad, speed = damaged_files(folder, manifest["files"], verify)
    for name, what in bad.items():
        more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
        raise InputError(
            f"The teacher cache {folder}: {name} {what}{more}. Run the command that "
            "fills it again, with the teacher at hand, or delete the folder."
        )
    return TeacherCache(folder, manifest, speed)


def match_windows(ids: np.ndarray, cached: np.ndarray) -> np.ndarray:
    """Finds each window's place in `cached`, which is ascending; -1 where it is not."""
    places = np.minimum(np.searchsorted(cached, ids), len(cached) - 1)
    return np.where(cached[places] == ids, places, -1)


class _Places(NamedTuple):
    """Rows of one shard: their numbers in it, and their places in the batch."""

    shard: int
    local: np.ndarray
    into: np.ndarray | slice


def _by_shard(rows: np.ndarray, shard_rows: int) -> list[_Places]:
    shards, local = np.divmod(rows, shard_rows)
    if not len(rows):
        return []
    if (shards == shards[0]).all():
        return [_Places(int(shards[0]), local, slice(None))]
    order = np.argsort(shards, kind="stable")
    cuts = np.flatnonzero(np.diff(shards[order])) + 1
    return [
        _Places(int(shards[mine[0]]), local[mine], mine)
        for mine in np.split(order, cuts)
    ]


def _mapped(file: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Maps a shard; a file that was replaced since is mapped anew."""
    try:
        stat = os.stat(file)
    except FileNotFoundError as error:
        raise InputError(
            f"{file} was deleted while in use: run the same command again to refill it."
        ) from error
    # Reading a mapping past the end of its file would end the process.
    need = math.prod(shape) * dtype.itemsize
    if stat.st_size < need:
        raise InputError(
            f"{file} was cut to {stat.st_size} bytes while in use: run the same "
            "command again to refill it."
        )
    array = _map(file, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"{file} holds {array.dtype}{list(array.shape)}, not "
            f"{dtype}{list(shape)}: delete the cache to fill it anew."
        )
    return array


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _map(file: str, *stamp: int) -> np.ndarray:
    # A plain array over the mapping: a memmap's own indexing is several times slower.
    return np.asarray(open_npy(Path(file), cure=CURE))


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _known_basis(file: Path, *stamp: int) -> Basis:
    return read_basis(file)
