"""The door for arrays: `.npy` and `.npz` files, without pickle and within limits.

What a header says is compared with the bytes that are there before memory is taken. A
file that is cut, damaged, no array, or no file at all is an `InputError` with one cure.
"""

import contextlib
import csv
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.errors import InputError

MOST_INFLATED = 100
"""Times that a compressed file may grow. Signals shrink to a half or a tenth, and rows
of probabilities hardly more."""
FREE_BYTES = 2**28
"""Bytes that a file may grow to however small it is: constant arrays shrink a lot."""

_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, RecursionError),
    *(MemoryError, OverflowError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, csv.Error),
    tokenize.TokenError,
)
"""What readers of NumPy, of archives and of tables raise at files that are none."""


class Header(NamedTuple):
    """Shape and type of an array, by its header."""

    shape: tuple[int, ...]
    dtype: np.dtype


@contextlib.contextmanager
def damage(path: Path, cure: str) -> Iterator[None]:
    """Raises what a reader of arrays raises as an `InputError`.

    Args:
        path: The file.
        cure: Sentence that ends the error.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        yield
    except InputError:
        raise
    except _DAMAGED as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        # NumPy adds lines of advice on how to read it nevertheless.
        said = said.splitlines()[0].rstrip(".")
        raise InputError(f"{path}: cannot be read ({said}). {cure}") from error


def open_npy(path: Path, *, cure: str) -> np.ndarray:
    """Maps the array of a `.npy` file.

    Raises:
        InputError: If it is missing, damaged, or cut; or would need pickle.
    """
    with damage(path, cure):
        with path.open("rb") as file:
            header = _read_header(file)
            _check_size(header, path.stat().st_size - file.tell())
        if not math.prod(header.shape):
            return np.empty(header.shape, header.dtype)  # Nothing to map.
        return np.load(path, mmap_mode="r", allow_pickle=False)


class Npz:
    """An opened `.npz` file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        """Keeps the archive, whose members are read one by one."""
        self._archive = archive
        self._most = max(MOST_INFLATED * path.stat().st_size, FREE_BYTES)
        self._members = {
            member.filename.removesuffix(".npy"): member
            for member in archive.infolist()
        }

    def __iter__(self) -> Iterator[str]:
        """Lists the names of the arrays."""
        return iter(self._members)

    def __contains__(self, name: str) -> bool:
        """Checks that there is an array of a name."""
        return name in self._members

    def header(self, name: str) -> Header:
        """Returns shape and type of an array, without reading it."""
        with self._open(name) as (file, size):
            header = _read_header(file)
            _check_size(header, size - file.tell())
        return header

    def read(self, name: str) -> np.ndarray:
        """Reads an array."""
        self.header(name)
        with self._open(name) as (file, _):
            return np.lib.format.read_array(file, allow_pickle=False)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, int]]:
        if name not in self._members:
            raise ValueError(f"it holds no array `{name}`")
        member = self._members[name]
        if member.file_size > self._most:
            raise ValueError(
                f"`{name}` grows to {member.file_size:,} bytes, more than "
                f"{MOST_INFLATED} times the file's size"
            )
        with self._archive.open(member) as file:
            yield file, member.file_size


@contextlib.contextmanager
def open_npz(path: Path, *, cure: str) -> Iterator[Npz]:
    """Opens a `.npz` file, whose arrays are read inside the context.

    Raises:
        InputError: If it is missing, damaged, or cut; if an array of it is, is not
            there, would need pickle, or grows beyond `MOST_INFLATED`.
    """
    with damage(path, cure), zipfile.ZipFile(path) as archive:
        yield Npz(path, archive)


def _read_header(file: Any) -> Header:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Python objects, which cannot be read without pickle")
    if any(n < 0 for n in shape):
        raise ValueError(f"its header tells of a shape {list(shape)}")
    return Header(shape, dtype)


def _check_size(header: Header, size: int) -> None:
    """Compares the bytes that a header tells of with those that follow it."""
    # Texts of no letters would take no bytes, and memory nevertheless.
    need = math.prod(header.shape) * max(header.dtype.itemsize, 1)
    if need > size:
        raise ValueError(
            f"its header tells of {need:,} bytes, and {size:,} are there: it was cut "
            "or altered"
        )
