"""Public corpora, one file each: layout, labels and split rule."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.data.recording import Recording


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
