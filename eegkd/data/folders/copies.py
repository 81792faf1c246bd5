"""Recordings with one content under two names."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_SAMPLE = 4096
_BESIDE = (".vhdr", ".hea", ".set", ".lay")
"""Headers whose samples lie in another file of the same stem."""


def equal_recordings(
    files: Sequence[Path], others: Iterable[Path]
) -> list[tuple[Path, ...]]:
    """Finds recordings whose samples are the same, byte by byte.

    Files are compared by their size, then by a few thousand bytes in the middle and at
    the end, and only then as a whole, without the header of an EDF or BDF file: it may
    name another person.

    Args:
        files: Recordings.
        others: Other files below the same folder, among them samples of recordings.

    Returns:
        Groups of equal recordings, in the order of `files`.
    """
    beside: dict[tuple[Path, str], list[Path]] = {}
    for path in (*files, *others):
        beside.setdefault((path.parent, path.stem), []).append(path)
    samples = {file: _samples(file, beside) for file in files}
    filled = (x for x in files if samples[x].is_file() and _size(samples[x]))
    groups = [tuple(filled)]
    for key in (_size, _glimpse, _content):
        groups = [part for group in groups for part in _split(group, samples, key)]
    return groups


def _samples(file: Path, beside: dict[tuple[Path, str], list[Path]]) -> Path:
    """Returns the file that holds a recording's samples: the largest of its own."""
    own = [file]
    if file.is_dir():
        own = [path for path in file.rglob("*") if path.is_file()] or own
    elif file.suffix.lower() in _BESIDE:
        own = [p for p in beside[file.parent, file.stem] if p.is_file()]
    return max(sorted(own), key=_size)


def _split(group: Sequence[Path], samples: dict[Path, Path], key: Any) -> Iterator[Any]:
    """Yields the parts of a group that have one key and more than one member."""
    parts: dict[Any, list[Path]] = {}
    for file in group:
        parts.setdefault(key(samples[file]), []).append(file)
    yield from (tuple(part) for part in parts.values() if len(part) > 1)


def _size(path: Path) -> int:
    return path.stat().st_size


def _glimpse(path: Path) -> bytes:
    size = _size(path)
    with path.open("rb") as file:
        start = _start(path, file)
        file.seek(max(start, size // 2))
        middle = file.read(_SAMPLE)
        file.seek(max(start, size - _SAMPLE))
        return middle + file.read(_SAMPLE)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(_start(path, file))
        return hashlib.file_digest(file, "sha256").digest()


def _start(path: Path, file: BinaryIO) -> int:
    """Returns where the samples begin: after the header of an EDF or BDF file."""
    if path.suffix.lower() not in (".edf", ".bdf"):
        return 0
    stated = file.read(256)[184:192].strip()
    return int(stated) if stated.isdigit() else 0
