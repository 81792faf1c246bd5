"""The recordings that `predict` is given: files, or those of a corpus."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from eegkd.data.corpora import UNLABELLED, Corpus, Source, get_corpus
from eegkd.data.folders.listing import SUFFIXES
from eegkd.data.recordings.reading import StatedUnit, read_events, read_recording
from eegkd.data.recordings.recording import Recording
from eegkd.deploy.load import Intake
from eegkd.errors import InputError


class Subject(NamedTuple):
    """A recording to predict on, and which of its labels are true events."""

    name: str
    recording: Recording
    event_labels: frozenset[str]


class Input(NamedTuple):
    """A recording before it is read.

    Attributes:
        path: The file, or the folder or archive that holds it.
        member: Name of the recording, where its file holds several; or "".
        folder: Folders that its output keeps, "/" between them; "" is none.
        stem: Its name, without the suffix of a file.
        read: Reads it, under the name of its output.
    """

    path: Path
    member: str
    folder: str
    stem: str
    read: Callable[[str], Subject]


def stem_of(path: Path) -> str:
    """Returns the whole name of a recording, dots included, without its suffix."""
    packed = path.suffix.lower() == ".gz" and len(path.suffixes) > 1
    return Path(path.stem).stem if packed else path.stem


def list_inputs(
    paths: Sequence[Path],
    intake: Intake,
    *,
    corpus: str = "",
    unit: StatedUnit | None = None,
) -> list[Input]:
    """Lists recordings, each once, without reading any.

    Args:
        paths: Files; with `corpus`, folders of that corpus.
        intake: Inputs of the model, whose event classes are the true events of files.
        corpus: Name of a corpus; "" is none.
        unit: Unit of the files' numbers.

    Raises:
        InputError: If `corpus` is given a file, or cannot list its recordings.
    """
    labels = frozenset(intake.manifest["classes"][i] for i in intake.event_classes)
    found: dict[tuple[Path, str], Input] = {}
    for path in paths:
        alone = functools.partial(_read_file, path, labels, unit)
        listed = [Input(path, "", "", stem_of(path), alone)]
        if corpus:
            rate = intake.manifest["rate"]
            listed = _of_corpus(path, corpus, labels, unit, rate)
        for each in listed:
            found.setdefault((each.path.absolute(), each.member), each)
    return list(found.values())


def _read_file(
    path: Path, labels: frozenset[str], unit: StatedUnit | None, name: str
) -> Subject:
    return Subject(name, read_recording(path, units=unit), labels)


def _of_corpus(
    path: Path,
    corpus: str,
    labels: frozenset[str],
    unit: StatedUnit | None,
    rate: float,
) -> Iterator[Input]:
    if not path.is_dir():
        raise InputError(
            f"{path} is no folder: with --data.corpus {corpus}, name the folder of its "
            "recordings; a single file needs no corpus."
        )
    # Whose a recording is, and which labels are too short for a window, is no matter.
    free = {"subject_from": "none", "window_s": 1 / rate}
    known = get_corpus(corpus, path, unit=unit, **free)
    if known.background is not None:
        labels = frozenset(known.classes) - {known.background, UNLABELLED}
    for source in known.list_sources(path):
        # Several persons of one file of arrays are "file:person".
        file, *own = source.recording_id.split(":")
        inside = PurePosixPath(file)
        # Some ids are names of files, others are not: "2024.03.01" has no suffix.
        is_file = inside.name == source.path.name
        name = "_".join((stem_of(Path(file)) if is_file else inside.name, *own))
        folder = "/".join(x for x in inside.parts[:-1] if x not in ("/", "..", "."))
        member = source.member or ":".join(own)
        # Recordings that a program draws have its file in common.
        member = member or ("" if known.needs_root else source.recording_id)
        read = functools.partial(_read_source, known, source, labels)
        yield Input(source.path, member, folder, name.replace("/", "_"), read)


def _read_source(
    corpus: Corpus, source: Source, labels: frozenset[str], name: str
) -> Subject:
    return Subject(name, corpus.read(source), labels)


def look_at(given: Input) -> None:
    """Looks whether a file can be opened, which takes less time than to read it.

    Raises:
        InputError: If it cannot.
    """
    if not given.path.exists():
        raise InputError(f"{given.path}: no such file. Check the path.")
    # A WFDB record is read whole, or not at all; other suffixes are a corpus's own.
    known = given.path.name.lower().endswith(SUFFIXES) and given.path.suffix != ".hea"
    if known and not (given.member or given.path.is_dir()):
        read_events(given.path)
