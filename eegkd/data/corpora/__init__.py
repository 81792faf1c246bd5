"""Public corpora, one file each: layout, labels and split rule."""

import importlib
import os
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.data.config import DataConfig
from eegkd.data.recordings.recording import Recording
from eegkd.errors import InputError

UNLABELLED = "unlabelled"
"""Label of an event whose stretch nobody has judged: -1, not background."""

_MODULES: Mapping[str, str] = {
    "synthetic": "eegkd.data.synthetic",
    "eegmat": "eegkd.data.corpora.eegmat",
    "bonn": "eegkd.data.corpora.bonn",
    "scalp": "eegkd.data.corpora.scalp",
    "chbmit": "eegkd.data.corpora.chbmit",
    "folder": "eegkd.data.corpora.folder",
    "arrays": "eegkd.data.corpora.arrays",
    "mentalarithmetic": "eegkd.data.corpora.mentalarithmetic",
    "eegmmidb": "eegkd.data.corpora.eegmmidb",
    "bciciv2a": "eegkd.data.corpora.bciciv2a",
    "mumtaz2016": "eegkd.data.corpora.mumtaz2016",
}


class Source(NamedTuple):
    """One recording of a corpus before it is read.

    Attributes:
        recording_id: Unique within the corpus, and stable.
        path: The file, or the folder or archive that holds it.
        member: The part of `path` to read, where it holds several recordings.
        subject: The person; the recording's id where a corpus names no persons.
        session: The visit, or "".
        info: What the corpus knows beside it: labels, onsets.
    """

    recording_id: str
    path: Path
    member: str = ""
    subject: str = ""
    session: str = ""
    info: Mapping[str, Any] = {}


class Corpus(NamedTuple):
    """How a corpus lies on disk and what its labels mean.

    Attributes:
        name: As in `--data.corpus`.
        classes: Label names; a window's label is the index.
        background: The class of windows outside every event; None leaves them
            unlabelled (-1).
        list_sources: `root -> sources`, in a stable order.
        read: `source -> Recording` with events labelled by class name, in uV.
        defaults: `DataConfig` fields where this corpus differs from the general ones.
        has_subjects: False where no subject ids exist: folds go by recording.
        fixed_split: `subjects -> {"train": .., "val": .., "test": ..}`, if published.
        student_subjects: Whose labels the student may use; empty: all of them.
        licence: One line.
        facts: More that is known of it, computed when a store is written: the
            synthetic worlds' best possible accuracy, as "bayes".
        trials: Every event is a trial: one window each, from its onset on.
        fixed: `DataConfig` fields of `defaults` that cannot be chosen otherwise.
    """

    name: str
    classes: tuple[str, ...]
    background: str | None
    list_sources: Callable[[Path], tuple[Source, ...]]
    read: Callable[[Source], Recording]
    defaults: Mapping[str, Any]
    has_subjects: bool = True
    fixed_split: Callable[[tuple[str, ...]], Mapping[str, tuple[str, ...]]] | None = (
        None
    )
    student_subjects: tuple[str, ...] = ()
    licence: str = ""
    facts: Callable[[], Mapping[str, Any]] | None = None
    trials: bool = False
    fixed: tuple[str, ...] = ()


def get_corpus(name: str, root: str | os.PathLike[str] = "", **options: Any) -> Corpus:
    """Returns a corpus by its name.

    A module of a corpus has `CORPUS`, or `make_corpus(config)` where the options make
    it: the classes of `folder` come from its labels.csv, `synthetic` has worlds.

    Args:
        name: As in `--data.corpus`.
        root: The folder of its recordings.
        **options: Other fields of `DataConfig` that it depends on: unit, world, seed.

    Raises:
        InputError: If no corpus has this name.
    """
    if name not in _MODULES:
        raise InputError(
            f"--data.corpus {name} is unknown; choose one of {', '.join(_MODULES)}."
        )
    module = importlib.import_module(_MODULES[name])
    if hasattr(module, "CORPUS"):
        return module.CORPUS
    config = DataConfig(corpus=name, root=str(root), **options)
    return module.make_corpus(config)


def folder_of(root: str | os.PathLike[str], name: str) -> Path:
    """Returns the folder of a corpus.

    Raises:
        InputError: If there is none.
    """
    folder = Path(root)
    if not str(root) or not folder.is_dir():
        raise InputError(
            f"--data.root {str(root)!r} is no folder. Name the one that holds the "
            f"{name} recordings."
        )
    return folder


def split_by_number(
    subjects: tuple[str, ...], *, ends: tuple[int, int], needs: str
) -> dict[str, tuple[str, ...]]:
    """Splits persons by the number that their names end in: a `fixed_split`.

    Args:
        subjects: Names, as "07" or "A07".
        ends: The last number in training, and in validation.
        needs: What the published split needs, for the message.

    Raises:
        InputError: If a part would be empty.
    """
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for person in sorted(subjects):
        number = int(person.lstrip(string.ascii_letters))
        passed = sum(number > end for end in ends)
        parts[("train", "val", "test")[passed]].append(person)
    if not all(parts.values()):
        raise InputError(
            f"--split fixed: the published {needs}; this copy lacks some. Use --split "
            "kfold."
        )
    return {part: tuple(names) for part, names in parts.items()}
