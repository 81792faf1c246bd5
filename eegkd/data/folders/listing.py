"""The recordings below a folder, each once, whatever links and parts lie beside them.

No file is listed for its suffix alone: links that lead nowhere and what is no regular
file are refused, links to what is listed already are left aside, and so is what
`eegkd.data.folders.kinds` knows for a part, or for no recording at all.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eegkd.data.folders.kinds import (
    annotation_files,
    bids_copies,
    first_files,
    pair_annotations,
    parts_of_others,
    what_else,
)
from eegkd.errors import InputError

SUFFIXES = (
    *(".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".lay"),
    *(".hea", ".eeg", ".mff", ".cdt", ".nxe", ".nedf", ".mefd"),
)
_FOLDER_FORMATS = (".mff", ".mefd")
_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Listing(NamedTuple):
    """What lies below a folder.

    Attributes:
        recordings: Recordings, in the order of their names, each once.
        stages: Recording -> file of annotations alone that belongs to it.
        parts: Recording -> other files that belong to it.
        aside: File that was left aside -> why.
        others: Other files, among them those that hold samples of recordings.
    """

    recordings: tuple[Path, ...]
    stages: Mapping[Path, Path]
    parts: Mapping[Path, Sequence[Path]]
    aside: Mapping[Path, str]
    others: tuple[Path, ...]


class _Found(NamedTuple):
    """Files in the order in which they were met: those that are links come last."""

    recordings: list[Path]
    others: list[Path]
    aside: dict[Path, str]


def list_recordings(root: Path) -> Listing:
    """Lists the recordings below a folder, but no hidden files or insides of .mff.

    Raises:
        InputError: If a recording is a link without its file, or no regular file, or a
            folder cannot be read.
    """
    found = _walk(root)
    aside = dict(found.aside)
    aside |= bids_copies(root, found.recordings)
    kept = [path for path in found.recordings if path not in aside]
    aside |= what_else(kept)
    kept = [path for path in kept if path not in aside]
    owners = parts_of_others(kept)
    samples = [p for p, owner in owners.items() if owner.suffix.lower() == ".vhdr"]
    aside |= {
        path: f"a part of {owner.name}"
        for path, owner in owners.items()
        if path not in samples
    }
    kept = [path for path in kept if path not in owners]
    alone = annotation_files(kept)
    kept = sorted(path for path in kept if path not in alone)
    stages, unpaired = pair_annotations(kept, alone)
    aside |= unpaired
    return Listing(
        recordings=tuple(kept),
        stages=stages,
        parts=first_files(owners),
        aside={path: aside[path] for path in sorted(aside)},
        others=tuple(sorted([*found.others, *samples])),
    )


def _walk(root: Path) -> _Found:
    """Meets every file below a folder once, real folders and files before links."""
    found = _Found([], [], {})
    home = os.path.realpath(root)
    folders, links, linked = [root], list[Path](), list[Path]()
    seen, files = set[str](), dict[str, Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        leads_up = folder != root and home.startswith(real.rstrip("/") + "/")
        if real in seen or leads_up:
            found.aside[folder] = "a link to a folder that is listed already"
            continue
        seen.add(real)
        for entry in _entries(folder):
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            mode = _mode(path, found.aside)
            if stat.S_ISDIR(mode) and path.suffix.lower() not in _FOLDER_FORMATS:
                (links if entry.is_symlink() else folders).append(path)
            elif not mode:
                continue
            elif not _is_recording(path):
                found.others.append(path)
            elif entry.is_symlink():
                linked.append(path)
            else:
                files.setdefault(os.path.join(real, path.name), path)
        links.sort()
    for path in linked:
        first = files.setdefault(os.path.realpath(path), path)
        if first != path:
            found.aside[path] = f"a link to {first.name}, which is listed"
    return found._replace(recordings=list(files.values()))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed ({error.strerror}). Allow reading it, or move "
            "it elsewhere."
        ) from error


def _is_recording(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _mode(path: Path, aside: dict[Path, str]) -> int:
    """Returns the mode of what a path leads to; 0 for what is of no matter.

    Raises:
        InputError: If a recording's path leads nowhere, or to no regular file.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if _is_recording(path):
            raise missing_target(path) from error
        if not path.suffix:
            aside[path] = "a link that leads nowhere"
        return 0
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return mode
    if _is_recording(path):
        raise InputError(
            f"{path} is {kind_of(mode)}, not a file, and is not opened. Remove it, or "
            "put the recording itself there."
        )
    return 0


def kind_of(mode: int) -> str:
    """Returns what a path is that is no regular file: "a named pipe"."""
    return next((name for test, name in _SPECIAL if test(mode)), "a folder")


def missing_target(path: Path) -> InputError:
    """Makes the error of a link whose file is not there."""
    try:
        target = f"a link to {os.readlink(path)}, which is not there"
    except OSError:
        target = "not to be reached"
    return InputError(
        f"{path} is {target}: its content was not fetched or was moved. Fetch it "
        "(datalad get, git annex get), or remove the link."
    )
