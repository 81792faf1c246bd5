"""What has to hold before a reader opens a file, and what its failures are called.

Readers of other packages block on a pipe, walk in circles through damaged files, and
take memory for as many samples as a header says. All of it ends here.
"""

import contextlib
import os
import re
import signal
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eegkd.errors import InputError

_SECONDS = 60.0
_SECONDS_PER_BYTE = 1e-6
_FREE_BYTES = 2**30
_MOST_GROWTH = 256
_MOST_REASON = 300


def check_file(path: Path, *, folder: bool = False) -> None:
    """Refuses what is no regular file (or folder, where that is a format).

    A pipe would block for ever, and a device never ends.

    Raises:
        InputError: If it is missing, cannot be reached, or is something else.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        said = "a link to a file that is gone" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {said}. Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: {reason}. Check the path.") from error
    if stat.S_ISREG(mode) or (folder and stat.S_ISDIR(mode)):
        return
    if stat.S_ISDIR(mode):
        raise InputError(
            f"{path}: a folder, not a recording. Name one file in it, or prepare the "
            "whole folder with --data.corpus folder."
        )
    raise InputError(
        f"{path}: a pipe or a device, not a file. Write what it holds to a file, and "
        "name that."
    )


def check_size(path: Path, num_channels: int, num_samples: int) -> None:
    """Refuses a header whose samples cannot lie in the recording's files.

    In memory a sample takes 8 bytes. Samples may be compressed, and slow channels are
    brought to the highest rate; so up to 1 GiB is not asked about, and above that 256
    times the bytes of all files of that name.

    Raises:
        InputError: If there are too many.
    """
    wanted = 8 * int(num_channels) * int(num_samples)
    if wanted <= _FREE_BYTES:
        return
    there = sum(file.stat().st_size for file in _companions(path))
    if wanted > _MOST_GROWTH * there:
        raise InputError(
            f"{path}: its header speaks of {num_samples} samples of {num_channels} "
            f"channels, and the recording has {there} bytes. The header is damaged: "
            "copy or download the file again."
        )


def _companions(path: Path) -> Iterable[Path]:
    """Lists all files of a recording: a folder's, or those of one stem."""
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    stem = path.name.partition(".")[0]
    near = (file for file in path.parent.iterdir() if file.name.startswith(stem))
    return [file for file in near if file.is_file()]


def check_companions(path: Path, names: Iterable[str]) -> None:
    """Refuses a recording that names a part which is there and no regular file.

    Raises:
        InputError: Naming the recording and the part.
    """
    for name in names:
        part = path.parent / name
        if os.path.exists(part) and not part.is_file():
            raise InputError(
                f"{path}: its part {part} is a pipe, a device or a folder, not a file. "
                "Copy the recording again, with all its parts."
            )


@contextlib.contextmanager
def reading(path: Path, failure: str, cure: str) -> Iterator[None]:
    """Raises whatever a reader raises as an `InputError`, and ends one that hangs.

    A reader has a minute, and a second per megabyte. It is stopped by an alarm: that
    needs no other process, and works in the main thread of a POSIX system alone.

    Args:
        path: The recording.
        failure: What could not be done, in words.
        cure: Last sentence of the message.
    """
    try:
        with _time_limit(path):
            yield
    except InputError:
        raise
    except _Timeout as error:
        raise InputError(
            f"{path}: {failure} within {error} s: its parts seem to point at each "
            f"other. {cure}"
        ) from None
    except MemoryError as error:
        raise InputError(
            f"{path}: it does not fit into memory ({error}). Cut it into shorter files."
        ) from error
    except Exception as error:
        raise _unreadable(path, failure, cure, error) from error


class _Timeout(BaseException):
    """Raised by the alarm; readers that catch every `Exception` must not catch it."""


@contextlib.contextmanager
def _time_limit(path: Path) -> Iterator[None]:
    alarm: Any = getattr(signal, "SIGALRM", None)
    ours = threading.current_thread() is threading.main_thread()
    if alarm is None or not ours or signal.getsignal(alarm) is not signal.SIG_DFL:
        yield
        return
    limit = round(_SECONDS + _SECONDS_PER_BYTE * path.stat().st_size)

    def stop(*args: Any) -> None:
        raise _Timeout(limit)

    signal.signal(alarm, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(alarm, signal.SIG_DFL)


def _unreadable(path: Path, failure: str, cure: str, error: Exception) -> InputError:
    lines = str(error).strip().splitlines()
    reason = (lines[0] if lines else type(error).__name__)[:_MOST_REASON]
    lacking = re.search(r"the module (\S+) is needed|No module named '(\w+)'", reason)
    if lacking:
        cure = f"Install that package: pip install {lacking[1] or lacking[2]}."
    return InputError(f"{path}: {failure} ({reason}). {cure}")
