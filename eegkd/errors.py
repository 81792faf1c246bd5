"""The two ways a command ends early: bad input, and an interruption."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """Bad input or configuration: exit code 2.

    The message is one or two sentences that name the file, the field and the cure.
    """


class Interrupted(RuntimeError):
    """Stopped by Ctrl-C or SIGTERM after saving: exit code 130, resumable."""


@contextlib.contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """Turns a full disk or a read-only folder into an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"Cannot write to {folder}: {reason}. Choose another --out, "
            "or make room and run the same command again."
        ) from error
