"""Writing a file whole or not at all."""

import os
from pathlib import Path

from eegkd.errors import InputError


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Writes beside `path`, then renames; makes the folder if needed.

    Raises:
        InputError: If the folder cannot be written (read-only, full).
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot write {path}: {error.strerror or error}; choose another folder "
            "or free some space."
        ) from error
    return path
