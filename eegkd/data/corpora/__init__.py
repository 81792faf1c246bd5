"""Corpora, one file each, found by file name: layout, labels and split rule.

A module here has `CORPUS`, or `make_corpus(config)` where options or files make the
corpus: the classes of `folder` come from its labels.csv, `synthetic` has worlds. With
both, `make_corpus` makes it and `CORPUS` says what is known before. The same holds for
modules that other distributions name by entry points of the group `eegkd.corpora`.
"""

import dataclasses
import os
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.data.config import DataConfig
from eegkd.data.recordings.recording import Recording
from eegkd.errors import InputError
from eegkd.host.plugins import find_names, load_part

UNLABELLED = "unlabelled"
"""Label of an event whose stretch nobody has judged: -1, not background."""

SEPARATOR = ";"
"""Between the classes of one label, where a window may have several."""

GROUP = "eegkd.corpora"
"""Entry points by which other distributions add corpora."""


class Source(NamedTuple):
    """One recording of a corpus before it is read.

    Attributes:
        recording_id: Unique within the corpus, and stable.
        path: The file, or the folder or archive that holds it.
        member: The part of `path` to read, where it holds several recordings.
        subject: The person; the recording's id where a corpus names no persons.
        session: The visit, or "".
        info: Other facts: labels, onsets.
    """

    recording_id: str
    path: Path
    member: str = ""
    subject: str = ""
    session: str = ""
    info: Mapping[str, Any] = {}


class Corpus(NamedTuple):
    """Layout of a corpus on disk, and the meaning of its labels.

    Attributes:
        name: Name, as in `--data.corpus`.
        classes: Label names; a window's label is the index.
        background: The class of windows outside every event; None leaves them
            unlabelled (-1).
        list_sources: `root -> sources`, in a stable order.
        read: `source -> Recording` with events labelled by class name, in uV.
        defaults: `DataConfig` fields that differ from `GENERAL` (windows/cutting.py).
        has_subjects: False where no subject ids exist: folds go by recording.
        fixed_split: `subjects -> {"train": .., "val": .., "test": ..}`, if published.
        student_subjects: Subjects whose labels the student may use; () is all.
        licence: Licence, in one line.
        facts: Computes further facts when a store is written: the best possible
            accuracy of the synthetic worlds, as "bayes".
        trials: True if every event is a trial: one window per event, from its onset.
        fixed: `DataConfig` fields of `defaults` that cannot be chosen otherwise.
        collection: Folder of this corpus in `$EEGKD_REAL_DATA`; "" if it has none.
        options: `DataConfig` fields, besides the root, that `make_corpus` reads.
        needs_root: False where recordings are drawn and no folder holds them.
        multilabel: True if a window may have several classes: its label is a row of k,
            1 for each class whose events cover enough of it, else 0; -1 for a class
            that nobody was asked for (`not_asked`). There is no background class then.
        task: Fields of a task of `eegkd.evaluate.tasks` that do not follow from the
            classes: `kind`, `metrics` and `monitor`.
        notes: Sentences on what was left aside, or is in doubt; `prepare` prints them.
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
    collection: str = ""
    options: tuple[str, ...] = ()
    needs_root: bool = True
    multilabel: bool = False
    task: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()


def not_asked(name: str) -> str:
    """Returns the label of a stretch that nobody has judged for one class of several.

    `UNLABELLED` itself stands for all of them.
    """
    return f"{UNLABELLED} {name}"


def split_label(text: str) -> tuple[str, ...]:
    """Returns the classes of a label such as "AF;RBBB"; ";" alone has none."""
    parts = (part.strip() for part in text.split(SEPARATOR))
    return tuple(dict.fromkeys(part for part in parts if part))


def corpus_names() -> tuple[str, ...]:
    """Lists all corpora, those of other distributions included."""
    return find_names(__name__, GROUP)


def get_corpus(name: str, root: str | os.PathLike[str] = "", **options: Any) -> Corpus:
    """Returns a corpus by its name.

    Args:
        name: Name, as in `--data.corpus`.
        root: Folder of its recordings.
        **options: Other fields of `DataConfig`; `Corpus.options` names those that it
            depends on.

    Raises:
        InputError: If no corpus has this name, two have it, or it cannot be imported.
    """
    module = _load(name)
    if module is None:
        raise InputError(
            f"--data.corpus {name} is unknown; choose one of "
            f"{', '.join(corpus_names())}."
        )
    if hasattr(module, "make_corpus"):
        config = DataConfig(corpus=name, root=str(root), **options)
        return module.make_corpus(config)
    return module.CORPUS


def fill_root(config: DataConfig, collection: str | os.PathLike[str]) -> DataConfig:
    """Fills an empty root with the corpus's folder in a collection of corpora.

    Args:
        config: Corpus and root.
        collection: A folder that holds one folder per corpus.

    Returns:
        The config, unchanged if there is no such corpus or folder.
    """
    if config.root:
        return config
    corpus = getattr(_load(config.corpus), "CORPUS", None)
    if corpus is None or not corpus.collection:
        return config
    folder = Path(collection, corpus.collection)
    return dataclasses.replace(config, root=str(folder)) if folder.is_dir() else config


def _load(name: str) -> Any:
    """Imports the module of a corpus; None if there is none."""
    module = load_part(__name__, GROUP, name, what="corpus")
    if module and not (hasattr(module, "CORPUS") or hasattr(module, "make_corpus")):
        raise InputError(
            f"The corpus {name} of another distribution is {module!r}, which has "
            "neither CORPUS nor make_corpus(config). Let its entry point name the "
            "module that has."
        )
    return module


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
        ends: Last number in training, and in validation.
        needs: Requirement of the published split, for the message.

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
