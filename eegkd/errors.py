"""The two ways a command ends early, bad input and an interruption; words for them."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = [
    "InputError",
    "Interrupted",
    "disk_error",
    "is_full",
    "output_errors",
    "quoted",
    "reason_of",
    "suggest",
]


def __dir__() -> list[str]:
    return list(__all__)


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a sentence that names what was probably meant, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def quoted(names: Iterable[str], most: int = 4, form: str = "{!r}") -> str:
    """Formats the first names, in quotes, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(form.format(name) for name in names[:most]) + more


class InputError(ValueError):
    """Bad input or configuration: exit code 2.

    The message is one or two sentences that name the file, the field and the cure.
    """


class Interrupted(RuntimeError):
    """Stopped by Ctrl-C or SIGTERM after saving: exit code 130, resumable."""


# As NumPy, orbax, safetensors and others say it, whose errors carry no number.
_WORDS = (
    (re.compile(r"No space left|\d+ requested and \d+ written"), errno.ENOSPC),
    (re.compile(r"quota exceeded"), errno.EDQUOT),
    (re.compile(r"Read-only file system"), errno.EROFS),
    (re.compile(r"Permission denied"), errno.EACCES),
)


def disk_error(error: BaseException | None) -> int:
    """Returns the system's number for why a file could not be written; 0 for another.

    It is looked for in the error and those behind it, in the words of any library.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        for words, number in _WORDS:
            if words.search(str(error)):
                return number
        error = error.__cause__ or error.__context__
    return 0


def is_full(error: BaseException) -> bool:
    """Checks that a disk, or a user's share of it, is full."""
    return disk_error(error) in (errno.ENOSPC, errno.EDQUOT)


def reason_of(error: BaseException) -> str:
    """Returns why a file could not be written, in the system's words if it has any."""
    number = disk_error(error)
    return os.strerror(number) if number else str(error)[:200]


@contextlib.contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """Raises a full disk or a read-only folder as an `InputError`."""
    try:
        yield
    except OSError as error:
        cure = "Choose another --out."
        if is_full(error):
            cure = "Choose another --out, or make room and run the same command again."
        elif isinstance(error, FileNotFoundError):
            cure = "It was removed meanwhile: run the same command again."
        raise InputError(
            f"Cannot write to {folder}: {reason_of(error)}. {cure}"
        ) from error
