"""Files that recordings come from: what tells them apart, their size and hash."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.data.corpora import Source
from eegkd.host.sealed import hash_file, hash_json

_HEADERS = (".hea", ".vhdr", ".set")


def describe_source(source: Source, root: Path) -> list[Any]:
    """Returns the identity of a source, wherever the corpus lies."""
    where = name_below(source.path, root)
    info = json.dumps(dict(source.info), sort_keys=True, default=str)
    names = [source.recording_id, source.member, source.subject, source.session]
    return [*names, where, size_of(source.path), info]


def part_name(source: Source, settings: Mapping[str, Any]) -> str:
    """Returns the name of a part, by recording, settings and the file's state."""
    stamp = max(file.stat().st_mtime_ns for file in files_of(source.path))
    key = hash_json([describe_source(source, source.path.parent), stamp, settings])
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", source.recording_id)[:80]
    return f"{safe}.{key[:16]}.json"


def name_below(path: Path, root: Path) -> str:
    """Returns the name of a file below a folder; its own where it lies elsewhere."""
    inside = path.is_relative_to(root)
    return (path.relative_to(root) if inside else Path(path.name)).as_posix()


def files_of(path: Path) -> list[Path]:
    """Lists the files of a source: one, a folder's, or a header and its data."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.suffix.lower() in _HEADERS:
        beside = _by_stem(path.parent, path.parent.stat().st_mtime_ns)
        return list(beside.get(path.stem, [path]))
    return [path]


@functools.lru_cache(maxsize=4)
def _by_stem(folder: Path, mtime_ns: int) -> Mapping[str, Sequence[Path]]:
    """Lists a folder's files by each name that they begin with before a full stop.

    A folder of many recordings is listed once, and again when it has changed.
    """
    found: dict[str, list[Path]] = {}
    # A pipe of that name would block whoever reads it.
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        stops = (i for i, letter in enumerate(file.name) if letter == ".")
        for i in stops:
            found.setdefault(file.name[:i], []).append(file)
    return found


def size_of(path: Path) -> int:
    """Returns the bytes of a source's files."""
    return sum(file.stat().st_size for file in files_of(path))


def hash_of(path: Path) -> str:
    """Returns the SHA-256 of a source's file, or of the hashes of several."""
    hashes = [hash_file(file) for file in files_of(path)]
    return hashes[0] if len(hashes) == 1 else hash_json(hashes)
