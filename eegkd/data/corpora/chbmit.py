"""CHB-MIT: long-term scalp EEG of children with epilepsy, bipolar, 256 Hz.

Folders chb01 to chb24 hold EDF files and `chbNN-summary.txt`, which gives the seizures
of every file. chb01 and chb21 are one girl, so 24 folders are 23 persons.

References:
    Shoeb 2009, Application of machine learning to epileptic seizure onset detection and
    treatment (MIT); Goldberger et al. 2000 (PhysioNet).
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from eegkd.data.corpora import Corpus, Source, folder_of
from eegkd.data.recordings.montage import DOUBLE_BANANA
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

_SAME_PERSON = {"21": "01"}
_FOLDER = re.compile(r"chb(\d\d)", re.IGNORECASE)
_NAME = re.compile(r"^File Name:\s*(\S+)\s*$", re.MULTILINE)
_COUNT = re.compile(r"^Number of Seizures in File:\s*(\d+)", re.MULTILINE)
_TIME = re.compile(
    r"^Seizure(?:\s+\d+)?\s+(Start|End)\s+Time:\s*(\d+(?:\.\d+)?)\s*sec", re.MULTILINE
)


def read_summary(path: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    """Reads the seizures of a folder: `file name -> ((start_s, end_s), ...)`.

    Raises:
        InputError: If an entry lists other times than it counts seizures.
    """
    try:
        text = path.read_text("latin-1")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). It gives the seizures; "
            "download it into the folder of its recordings."
        ) from error
    found = list(_NAME.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {
        match[1]: _seizures(path, match[1], text[match.end() : end])
        for match, end in zip(found, ends, strict=True)
    }


def _seizures(path: Path, name: str, entry: str) -> tuple[tuple[float, float], ...]:
    count = _COUNT.search(entry)
    times: dict[str, list[float]] = {"Start": [], "End": []}
    for match in _TIME.finditer(entry):
        times[match[1]].append(float(match[2]))
    pairs = tuple(zip(times["Start"], times["End"], strict=False))
    listed = {len(times["Start"]), len(times["End"])}
    stated = int(count[1]) if count else -1
    if listed != {stated} or any(end <= start for start, end in pairs):
        raise InputError(
            f"{path}: the entry of {name} states {stated} seizures and lists "
            f"{len(times['Start'])} starts and {len(times['End'])} ends. Download the "
            "summary again."
        )
    return pairs


def list_sources(root: Path) -> tuple[Source, ...]:
    """Lists the EDF files of the folders chbNN at or below root.

    Raises:
        InputError: If a folder lacks its summary, or a file its entry there: it would
            silently count as free of seizures.
    """
    folder = folder_of(root, "chbmit")
    cases = [folder, *sorted(p for p in folder.rglob("chb*") if p.is_dir())]
    sources: list[Source] = []
    for case in cases:
        match = _FOLDER.fullmatch(case.name)
        files = sorted(case.glob("*.edf")) if match else []
        if match and files:
            sources += _list_case(case, match[1], files)
    if not sources:
        raise InputError(
            f"{folder}: no folders chb01 ... chb24 with EDF files. Set --data.root to "
            "the folder that holds them."
        )
    return tuple(sources)


def _list_case(case: Path, number: str, files: list[Path]) -> list[Source]:
    summary = case / f"chb{number}-summary.txt"
    seizures = read_summary(summary)
    unknown = [path.name for path in files if path.name not in seizures]
    if unknown:
        raise InputError(
            f"{summary}: no entry for {', '.join(unknown)}, so its seizures are "
            "unknown. Download the summary again, or move the file away."
        )
    return [
        Source(
            recording_id=path.stem,
            path=path,
            subject=_SAME_PERSON.get(number, number),
            session=number,
            info={"seizures": seizures[path.name], "summary": str(summary)},
        )
        for path in files
    ]


def read(source: Source) -> Recording:
    """Reads one file; its seizures are the events, all else is background."""
    recording = read_recording(source.path)
    events = []
    for start, end in source.info["seizures"]:
        if end > recording.duration_s + 1:
            raise InputError(
                f"{source.info['summary']}: a seizure of {source.path.name} ends at "
                f"{end:g} s, but the file at {recording.duration_s:g} s. Download both "
                "again."
            )
        events.append(Event(onset_s=start, duration_s=end - start, label="seizure"))
    return dataclasses.replace(
        recording, events=tuple(events), subject=source.subject, session=source.session
    )


def fixed_split(subjects: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Returns the split of BIOT and CBraMod: test chb23-24, validation chb22.

    The published list puts chb21 into validation, though the same girl is chb01 in
    training: here she is in training only. chb12, chb13 and chb17 are in no part, as
    there.

    Raises:
        InputError: If a part of it would be empty.
    """
    left_out, val, test = ("12", "13", "17"), ("22",), ("23", "24")
    held_out = {*left_out, *val, *test}
    split = {
        "train": tuple(s for s in sorted(subjects) if s not in held_out),
        "val": tuple(s for s in val if s in subjects),
        "test": tuple(s for s in test if s in subjects),
    }
    if not all(split.values()):
        raise InputError(
            "--split fixed: the published CHB-MIT split needs chb22 (validation), "
            "chb23 or chb24 (test) and others to train on; this copy lacks some. Use "
            "--split kfold."
        )
    return split


CORPUS = Corpus(
    name="chbmit",
    classes=("background", "seizure"),
    background="background",
    list_sources=list_sources,
    read=read,
    defaults={
        "channels": DOUBLE_BANANA,
        "montage": "double_banana",
        "notch": 60.0,
        "overlap": 0.5,
    },
    fixed_split=fixed_split,
    licence="ODC-By 1.0 (Shoeb 2009, PhysioNet)",
    collection="seizure_chbmit",
)
