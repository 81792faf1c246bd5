"""What a process does while it reads: files written, memory taken, text printed."""

import contextlib
import hashlib
import io
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

GIB = 1 << 30
MEMORY = 2 * GIB
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link",
            "os.truncate", "os.chmod", "os.chown", "shutil.rmtree")  # fmt: skip
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class Outside:
    """Collects the files that are written outside a folder; one for a process."""

    def __init__(self) -> None:
        self.place: Path | None = None
        self.found: list[str] = []
        kept = (os.environ.get("JAX_COMPILATION_CACHE_DIR"), sys.pycache_prefix)
        self.kept = [os.path.realpath(path) for path in kept if path]
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.place is None:
            return
        if event == "open":
            path, mode, flags = args
            text = mode if isinstance(mode, str) else ""
            if not (set(text) & set("wax+") or (flags or 0) & _WRITING):
                return
            paths: tuple[Any, ...] = (path,)
        elif event in _CHANGES:
            paths = args[:2] if event in ("os.rename", "os.link") else args[:1]
        else:
            return
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike) and not self._allowed(path):
                self.found.append(f"{event} {os.fsdecode(path)}")

    def _allowed(self, path: Any) -> bool:
        text = os.path.abspath(os.fsdecode(path))
        roots = (str(self.place), *self.kept, "/dev/null", "/dev/shm", "/proc/self")
        return "__pycache__" in text or any(text.startswith(root) for root in roots)


@contextlib.contextmanager
def placed(outside: Outside, place: Path) -> Iterator[None]:
    """Works inside a folder, temporary files too, and watches what leaves it."""
    before, temporary = os.getcwd(), tempfile.tempdir
    os.chdir(place)
    tempfile.tempdir = str(place / "out.temporary")
    os.mkdir(tempfile.tempdir)
    outside.place, outside.found = place, []
    try:
        yield
    finally:
        outside.place, tempfile.tempdir = None, temporary
        os.chdir(before)


def snapshot(place: Path) -> dict[str, tuple[Any, ...]]:
    """Describes all below a folder but what is named as output is: `out*`."""
    found: dict[str, tuple[Any, ...]] = {}
    for where, folders, files in os.walk(os.fsencode(place)):
        for name in [*folders, *files]:
            path = os.path.join(where, name)
            relative = os.fsdecode(os.path.relpath(path, os.fsencode(place)))
            if not relative.startswith("out"):
                stat = os.lstat(path)
                times = () if os.path.isdir(path) else (stat.st_size, stat.st_mtime_ns)
                found[relative] = (stat.st_mode, *times)
    return found


def limit_memory() -> None:
    """Allows this process 2 GiB of addresses beyond what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


def unlimit_memory() -> None:
    """Takes the limit back."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def reset_peak() -> int:
    """Starts measuring the peak of memory anew; returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Returns the most bytes held since `reset_peak`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) << 10


def group(leader: int) -> tuple[float, bool]:
    """Returns the CPU seconds of a group of processes, and whether one can run."""
    ticks, runs = 0, False
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp, *rest = path.read_text().rpartition(")")[2].split()
            if int(pgrp) == leader:
                ticks += sum(map(int, rest[8:10]))
                runs |= state == "R"
    return ticks / os.sysconf("SC_CLK_TCK"), runs


def ran_out(error: BaseException | None) -> bool:
    """Tells whether memory ran out at the root of an error, whatever it became."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Collects what is printed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text


def unsafe(text: str) -> str:
    """Returns what a terminal would obey: controls, escapes, changes of direction."""
    plain = "\n\r\t"
    bad = {
        c
        for c in text
        if (c not in plain and (ord(c) < 32 or 127 <= ord(c) < 160)) or c in _BIDI
    }
    return ", ".join(f"U+{ord(c):04X}" for c in sorted(bad))


def arrays(value: Any) -> Iterator[np.ndarray]:
    """Yields every array and number of nested lists, mappings and tuples."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from arrays(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays(item)
    elif hasattr(value, "shape") or isinstance(value, int | float | str | bool):
        yield np.asarray(value)


def not_finite(value: Any) -> bool:
    """Tells whether there is NaN or an infinite number among what was read."""
    kinds = (a for a in arrays(value) if a.dtype.kind in "fc" or a.dtype.itemsize == 2)
    return any(
        not np.isfinite(a.astype(complex if a.dtype.kind == "c" else float)).all()
        for a in kinds
        if a.dtype.kind not in "USOb"
    )


def digest(value: Any) -> str:
    """Computes a hash of what was read."""
    found = hashlib.sha256()
    for array in arrays(value):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
