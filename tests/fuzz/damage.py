"""Damages a folder as a seed says: the content of its files, or what its files are."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from random import Random

from tests.fuzz.mutations import BLIND, TEXTS, Mutation, flip_bits

Node = Callable[[Path, Random], None]

SOUND, NODES, OWN = 0.1, 0.1, 0.5
"""Shares of seeds that change nothing, and of changes to nodes and by the format."""


def fifo(path: Path, rng: Random) -> None:
    """Puts a pipe that nobody writes in the place of a file."""
    path.unlink()
    os.mkfifo(path)


def link(path: Path, rng: Random) -> None:
    """Puts a link there: to nothing, to itself, to its folder, to endless zeros."""
    path.unlink()
    path.symlink_to(rng.choice(("nowhere", path.name, "..", ".", "/dev/zero")))


def folder(path: Path, rng: Random) -> None:
    """Puts a folder there, empty or with the file in it."""
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / path.name).write_bytes(content)


def remove(path: Path, rng: Random) -> None:
    """Removes the file."""
    path.unlink()


def strange_name(path: Path, rng: Random) -> None:
    """Gives a file or its folder a name with markup, or one that is not UTF-8."""
    names = [t for t in TEXTS if t.strip() and not set(t) & set("/\0")]
    names.append("\udcff\udcfe")
    name = rng.choice(
        (f"{rng.choice(names)[:100]}{path.suffix}", rng.choice(names)[:80])
    )
    old = rng.choice((path, path, path.parent if path.parent.name != "in" else path))
    old.rename(old.with_name(name))


def extra(path: Path, rng: Random) -> None:
    """Puts something beside a file: a pipe, a link, a copy under another name."""
    beside = path.parent / rng.choice(("b.edf", "c", "\u202ed.edf", "labels2.csv"))
    action = rng.randrange(3)
    if beside.exists() or beside.is_symlink():
        return
    if action == 0:
        os.mkfifo(beside)
    elif action == 1:
        beside.symlink_to(rng.choice(("nowhere", beside.name, "..", ".", path.name)))
    else:
        shutil.copy(path, beside)


for _node in (strange_name, extra):
    _node.is_node = True  # type: ignore[attr-defined]


NODE: Sequence[Node] = (fifo, link, folder, remove)


def changed(change: Mutation, content: bytes, rng: Random) -> bytes:
    """Changes content; blindly where an earlier change left nothing of its format."""
    try:
        return change(content, rng)
    except Exception:
        return flip_bits(content, rng)


def damage(
    root: Path, own: Mapping[str, Sequence[Mutation | Node]], rng: Random
) -> list[str]:
    """Changes a few of a folder's files.

    Args:
        root: A copy of sound input.
        own: Patterns of the files to damage -> what knows their format, or changes the
            folder around them.
        rng: Random numbers.

    Returns:
        What was done, in words; nothing where the input stays sound.
    """
    if rng.random() < SOUND:
        return []
    done: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files = {
            path.relative_to(root).as_posix(): path
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
        known = [n for n in files if any(fnmatch(n, pattern) for pattern in own)]
        if not known:
            break
        name = rng.choice(known)
        path = files[name]
        special = next(own[pattern] for pattern in own if fnmatch(name, pattern))
        if rng.random() < NODES:
            change = rng.choice(NODE)
        elif special and rng.random() < OWN:
            change = rng.choice(special)
        else:
            change = rng.choice(BLIND)
        if change in NODE or getattr(change, "is_node", False):
            change(path, rng)  # type: ignore[arg-type]
        else:
            path.write_bytes(changed(change, path.read_bytes(), rng))  # type: ignore[arg-type]
        done.append(f"{getattr(change, '__name__', change)} {name!r}")
    return done
