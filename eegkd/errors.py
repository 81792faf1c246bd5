"""The two ways a command ends early, bad input and an interruption; words for them."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a sentence that names what was probably meant, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


class InputError(ValueError):
    """Bad input or configuration: exit code 2.

    The message is one or two sentences that name the file, the field and the cure.
    """


class Interrupted(RuntimeError):
    """Stopped by Ctrl-C or SIGTERM after saving: exit code 130, resumable."""


@contextlib.contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """Raises a full disk or a read-only folder as an `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"Cannot write to {folder}: {reason}. Choose another --out, "
            "or make room and run the same command again."
        ) from error
