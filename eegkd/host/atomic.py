"""Files written whole or not at all, and folders with one writer at a time."""

import contextlib
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from eegkd.errors import InputError, is_full, output_errors, reason_of

try:
    import fcntl
except ImportError:  # Not a POSIX system: there is no lock to take.
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"
_PART = re.compile(r"\..+\.\d+\.part")
_logger = logging.getLogger(__name__)


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes next to `path`, then renames; makes the folder if needed.

    Text is UTF-8; halves of surrogate pairs, as of a file's name that is none, are
    written out.

    Content and name are on the disk when it returns: a file written next, such as a
    mark of completion, never exists without it.

    Raises:
        InputError: If the folder cannot be written (read-only, full).
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    with open_atomic(path) as file:
        file.write(content)
    return Path(path)


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file for atomic writing piece by piece.

    Raises:
        InputError: If the folder cannot be written (read-only, full).
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        cure = " or free some space" if is_full(error) else ""
        raise InputError(
            f"Cannot write {path}: {reason_of(error)}; choose another folder{cure}."
        ) from error


def remove_parts(folder: Path) -> None:
    """Removes leftovers of killed `write_atomic` calls below a folder.

    For the sole writer of the folder: it cannot tell them from parts in progress.
    """
    for part in folder.rglob(".*.part"):
        if _PART.fullmatch(part.name):  # A browser's downloads are called alike.
            part.unlink()


def remove_own(folder: Path, is_own: Callable[[str], Any]) -> None:
    """Removes a folder's files that the library wrote, and the folder if none is left.

    Args:
        folder: The folder; it may be missing.
        is_own: Tells by a file's name.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file() and is_own(path.name):
            path.unlink()
    with contextlib.suppress(OSError):  # It holds something else.
        folder.rmdir()


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders, and orders names by itself.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Waits until everything below a folder is on the disk."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Makes a folder and keeps other processes out of it.

    The lock is the operating system's and ends with the process, however that ends; a
    leftover lock file locks nothing.

    Raises:
        InputError: If another process is writing the folder, or it is not writable.
    """
    path = folder / _LOCK
    with output_errors(folder):
        file = _open_lock(path)
        while not _lock(folder, file):
            file = _open_lock(path)
    with file:
        try:
            with output_errors(folder):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)


def _open_lock(path: Path) -> IO[str]:
    """Opens a lock's file, and makes its folder, which its last owner may remove."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("a+")
        except FileNotFoundError:
            continue


def _lock(folder: Path, file: Any) -> bool:
    """Locks an open file; False if its last owner has just removed it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with file:
            file.seek(0)
            who = file.read() or "another process"
        raise InputError(
            f"{folder} is in use by {who}: wait for it, stop it, or choose another "
            "--out."
        ) from error
    except OSError as error:
        # Some network file systems know no locks; the work itself needs none.
        _logger.warning("%s cannot be locked (%s).", folder, error.strerror)
        return True
    if os.fstat(file.fileno()).st_nlink:
        return True
    file.close()
    return False
