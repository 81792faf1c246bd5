"""Files that are verified when they are opened: hashes, and sealed records.

A folder of whole files has a JSON record that names each of them with its SHA-256, and
carries a hash of its own fields. A window store, a teacher cache and a checkpoint
are such folders; a finished training names its files in `done.json` likewise.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from eegkd.errors import InputError
from eegkd.host.json_file import parse_json, read_text
from eegkd.host.shapes import fit

Verify = Literal["sha256", "once", "size"]
"""How files are compared with their record: by content; by content once per process,
until the file changes; by size alone."""


class FileRecord(TypedDict):
    """A file in a record: its size, and the SHA-256 of its content."""

    bytes: int
    sha256: str


# Files verified in this process: path, and stamps that change when the file does.
_found_whole: set[tuple[Any, ...]] = set()


def hash_json(value: Any) -> str:
    """Computes the hash of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_arrays(*arrays: np.ndarray) -> str:
    """Computes the hash of arrays, their types and shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """Computes relative name -> SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record, as JSON gives it back, with the hash of its other fields."""
    body = {key: value for key, value in record.items() if key != "sha256"}
    body = json.loads(json.dumps(body, default=str))
    return body | {"sha256": hash_json(body)}


def seal(record: Mapping[str, Any]) -> str:
    """Formats a record with the hash of its fields, for `read_sealed`."""
    return json.dumps(sealed(record), indent=1, sort_keys=True) + "\n"


def parse_sealed(
    file: Path,
    version: int | None = None,
    check: Callable[[Mapping[str, Any]], str] | None = None,
    shape: Any = dict,
) -> dict[str, Any]:
    """Reads what `seal` formatted.

    Args:
        file: The record.
        version: Expected `version`; None leaves that to the caller.
        check: Returns what is wrong with a field, "" for nothing: it names the field
            where the hash only shows that one is wrong.
        shape: Shape of the record, for `shapes.fit`.

    Raises:
        ValueError: With what is wrong, in a few words.
    """
    try:
        record = parse_json(read_text(file), strict=False)
    except ValueError as error:
        said = str(error).removeprefix("it ")
        raise ValueError(f"{file.name} {said}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{file.name} was altered (it is no JSON object)")
    found = record.get("version")
    if version is not None and found != version:
        raise ValueError(f"version is {found!r}, this library reads {version}")
    wrong = check(record) if check is not None else ""
    if wrong:
        raise ValueError(wrong)
    fit(shape, record)
    if sealed(record)["sha256"] != record.get("sha256"):
        raise ValueError(f"{file.name} was altered (sha256 differs)")
    return record


def read_sealed(
    file: Path,
    what: str,
    *,
    version: int,
    cure: str,
    check: Callable[[Mapping[str, Any]], str] | None = None,
    shape: Any = dict,
) -> dict[str, Any]:
    """Reads a folder's record as `parse_sealed` does, with errors for users.

    Args:
        file: The record.
        what: Kind of the folder, which begins the error: "Window store".
        version: As in `parse_sealed`.
        cure: A sentence that ends the error.
        check: As in `parse_sealed`.
        shape: As in `parse_sealed`.

    Raises:
        InputError: Naming the folder, the field and the cure.
    """
    try:
        return parse_sealed(file, version, check, shape)
    except ValueError as error:
        raise InputError(f"{what} {file.parent}: {error}. {cure}") from error


def bad_files(
    folder: Path, files: Mapping[str, Any], how: Verify = "sha256"
) -> dict[str, str]:
    """Finds files that differ from their record.

    Args:
        folder: Folder of the files.
        files: Name -> `{"bytes", "sha256"}`, or the SHA-256 alone.
        how: "size" reads no content: of files without a recorded size, it finds only
            missing ones.

    Returns:
        Name -> what is wrong.
    """
    bad = {}
    for name, entry in files.items():
        wanted = entry if isinstance(entry, Mapping) else {"sha256": entry}
        file = folder / name
        if not file.is_file():
            bad[name] = "is missing"
        elif (size := file.stat().st_size) != wanted.get("bytes", size):
            bad[name] = f"has {size} bytes, not {wanted['bytes']}"
        elif how != "size" and not _is_whole(file, wanted["sha256"], how):
            known = "bytes" in wanted
            bad[name] = (
                f"was {'altered (sha256 differs)' if known else 'cut or altered'}"
            )
    return bad


def note_whole(file: Path, sha256: str) -> None:
    """Records that a file is verified, so that this process need not hash it."""
    _found_whole.add(_stamp(file, sha256))


def _is_whole(file: Path, sha256: str, how: Verify) -> bool:
    # Taken before: a file that changes while it is read is read again next time.
    stamp = _stamp(file, sha256)
    if how == "once" and stamp in _found_whole:
        return True
    whole = hash_file(file) == sha256
    if whole:
        _found_whole.add(stamp)
    return whole


def _stamp(file: Path, sha256: str) -> tuple[Any, ...]:
    stat = file.stat()
    # The time of the change of status cannot be set back, as that of the content can.
    times = (stat.st_mtime_ns, stat.st_ctime_ns)
    return (str(file), stat.st_dev, stat.st_ino, stat.st_size, *times, sha256)


def first_difference(
    was: Any, now: Any, depth: int = 99
) -> tuple[str, Any, Any] | None:
    """Finds the first field in which two records differ.

    Args:
        was: A record, or a value.
        now: Another record or value; its order of fields comes first.
        depth: Levels of nested records to enter.

    Returns:
        Dotted name of the field ("" for the record) with both values, None for an
        absent one; None if both are equal.
    """
    if was == now:
        return None
    if depth and isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*now, *was]):
            inner = first_difference(was.get(key), now.get(key), depth - 1)
            if inner is not None:
                return f"{key}.{inner[0]}".removesuffix("."), *inner[1:]
    return "", was, now


def format_bytes(num: float) -> str:
    """Formats a number of bytes for people: "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if num < 1024:
            return f"{num:.0f} B" if unit == "B" else f"{num:.1f} {unit}"
        num /= 1024
    return f"{num:.1f} GiB"
