"""The door for JSON: a file is read, parsed strictly, and of a stated shape."""

import json
import math
from pathlib import Path
from typing import Any

from eegkd.errors import InputError
from eegkd.host.shapes import fit
from eegkd.host.text import plain

MOST_BYTES = 2**28
"""Largest file that is read: no record, configuration or vocabulary comes near it."""
_MOST_DIGITS, _MOST_LONG = 20, 1000


def read_json(path: Path, shape: Any = Any, *, cure: str, strict: bool = True) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        shape: Shape of its content, as `shapes.fit` takes it.
        cure: Sentence that ends an error.
        strict: As in `parse_json`.

    Raises:
        InputError: If it is missing, no file, no JSON, or of another shape; the message
            names the file and the field.
    """
    try:
        return fit(shape, parse_json(read_text(path), strict=strict))
    except ValueError as error:
        raise InputError(f"{path}: {error}. {cure}") from error


def read_text(path: Path) -> str:
    """Reads a file of UTF-8, with or without a mark of byte order.

    Raises:
        ValueError: If it is no regular file (a pipe would never end), larger than any
            that is needed, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, and {MOST_BYTES:,} are read")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not JSON (no UTF-8 at byte {error.start})") from error


def parse_json(text: str, *, strict: bool = True) -> Any:
    """Parses JSON.

    Args:
        text: The text.
        strict: Refuse what JSON does not know or leaves open: NaN and Infinity, a name
            that an object has twice, and numbers of more than 64 bits. Files of others
            may hold them, and so may sealed records, whose hash tells that they are
            meant.

    Raises:
        ValueError: If it is none.
    """
    hooks: dict[str, Any] = {"parse_int": _long}
    if strict:
        hooks = {
            **{"parse_int": _integer, "parse_float": _float},
            **{"parse_constant": _constant, "object_pairs_hook": _object},
        }
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is not JSON that is read (nested too deeply)") from error


def _long(text: str) -> int:
    if len(text) > _MOST_LONG:
        raise ValueError(f"{plain(text, 24)} is no number that is read")
    return int(text)


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{plain(text, 24)} is no number of 64 bits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{plain(text, 24)} is no number of 64 bits")
    return value


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number that JSON knows")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{plain(name, 40)!r} is there twice in one object")
        found[name] = value
    return found
