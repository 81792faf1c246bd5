"""Mumtaz 2016: rest of 34 depressed and 30 healthy persons, 19 electrodes, 256 Hz.

A flat folder of EDF files: `MDD S1 EC.edf` (depressed, eyes closed), `H S1 EO.edf`
(healthy, eyes open), some with a number in front (`6921143_H S15 EO.edf`). The files of
a task (`... TASK.edf`) are left aside, as the CBraMod benchmark does. The class is the
person's, so a split that is not by person says nothing.

The benchmark splits by file: of the sorted names, 40 healthy and 42 depressed files are
for training, the next 8 and 10 for validation, so a person's files fall on both sides.
Here `--split fixed` is that list with such a person wholly in the earlier part: nobody
is tested who was trained on.

References:
    Mumtaz 2016, MDD Patients and Healthy Controls EEG Data, figshare 4244171;
    wjq-learning/CBraMod, `preprocessing/`.

Note:
    The release holds some recordings twice, under the names of two persons or with two
    numbers in front. Two files of equal size whose signals are equal count as one file
    of one person. Filters are this library's: a squared Butterworth in place of MNE's
    FIR. The benchmark's windows are microvolts: add `--data.zscore none`.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from eegkd.data.config import DataConfig
from eegkd.data.corpora import Corpus, Source, folder_of
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

CLASSES = ("healthy", "depressed")
CHANNELS = (
    *("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2"),
    *("F7", "F8", "T7", "T8", "P7", "P8", "Fz", "Cz", "Pz"),
)
PARTS = ("train", "val", "test")
_ENDS = {"H": (40, 48), "MDD": (42, 52)}
_FILE = re.compile(r"(?:\d+_)?(MDD|H) S(\d+) +(EC|EO)\.edf", re.IGNORECASE)
_PROBE_BYTES = 1 << 16


class _File(NamedTuple):
    """A file, and the part of the published split that it is in."""

    source: Source
    part: int


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of `config.root`; its split depends on the files there."""
    files = _list_files(config.root)
    return Corpus(
        name="mumtaz2016",
        classes=CLASSES,
        background=None,
        list_sources=functools.partial(_sources, files),
        read=read,
        defaults={
            "channels": CHANNELS,
            "band": (0.3, 75.0),
            "notch": 50.0,
            "window_s": 5.0,
        },
        fixed_split=functools.partial(_fixed_split, files),
        licence="CC-BY 4.0 (Mumtaz 2016, figshare)",
    )


def _list_files(root: str) -> tuple[_File, ...]:
    folder = folder_of(root, "mumtaz2016")
    groups: dict[str, list[tuple[Path, str]]] = {"H": [], "MDD": []}
    for path in sorted(folder.rglob("*"), key=lambda path: path.name):
        match = _FILE.fullmatch(path.name)
        if match:
            group = match[1].upper()
            groups[group].append((path, f"{group}{int(match[2]):02d}"))
    if not any(groups.values()):
        raise InputError(
            f"{folder}: no 'H S1 EC.edf' or 'MDD S1 EC.edf' in it. Set --data.root to "
            "the folder of the Mumtaz 2016 recordings."
        )
    files: list[_File] = []
    found: dict[tuple[int, str], str] = {}
    same: dict[str, str] = {}
    for (group, listed), label in zip(groups.items(), CLASSES, strict=True):
        for index, (path, person) in enumerate(listed):
            part = sum(index >= end for end in _ENDS[group])
            first = found.setdefault(_probe(path), f"{person} {path.name}")
            owner, _, name = first.partition(" ")
            if name == path.name:
                info = {"label": label}
                source = Source(path.stem, path, subject=person, info=info)
                files.append(_File(source, part))
            elif not owner.startswith(group):
                raise InputError(
                    f"{path} holds the signal of {name}, of the other class. Download "
                    "both again."
                )
            elif _root(same, owner) != _root(same, person):
                same[_root(same, person)] = _root(same, owner)
    return tuple(
        file._replace(
            source=file.source._replace(subject=_root(same, file.source.subject))
        )
        for file in files
    )


def _root(same: Mapping[str, str], person: str) -> str:
    """Returns the name under which this person was met first."""
    while person in same:
        person = same[person]
    return person


def _probe(path: Path) -> tuple[int, str]:
    """Returns size and hash of the middle, which equal recordings share."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size // 2)
        return size, hashlib.sha256(file.read(_PROBE_BYTES)).hexdigest()


def _sources(files: tuple[_File, ...], root: Path) -> tuple[Source, ...]:
    return tuple(file.source for file in files)


def read(source: Source) -> Recording:
    """Reads one file; one event over all of it carries the class."""
    recording = read_recording(source.path)
    whole = Event(
        onset_s=0.0, duration_s=recording.duration_s, label=source.info["label"]
    )
    return dataclasses.replace(recording, events=(whole,), subject=source.subject)


def _fixed_split(
    files: tuple[_File, ...], subjects: tuple[str, ...]
) -> Mapping[str, tuple[str, ...]]:
    """Returns the CBraMod benchmark's split, each person in the earliest of its parts.

    Raises:
        InputError: If a part of it would be empty.
    """
    earliest: dict[str, int] = {}
    for source, part in files:
        earliest[source.subject] = min(part, earliest.get(source.subject, part))
    split = {
        name: tuple(person for person in subjects if earliest[person] == part)
        for part, name in enumerate(PARTS)
    }
    if not all(split.values()):
        raise InputError(
            "--split fixed: the published Mumtaz 2016 split counts files: it needs "
            "more than 48 of healthy or 52 of depressed persons; this copy has fewer. "
            "Use --split kfold."
        )
    return split
