"""Anyone's own recordings: a folder of files, with or without a `labels.csv`.

Every file below the folder whose suffix is that of a recording is one. Its person is
the `subject` of labels.csv, else the BIDS word `sub-XX` in its path, else its
sub-folder, else unknown (then folds go by recording).

`labels.csv` lies at the top, with the columns `file` (relative to the folder), `label`
and, as wanted, `subject`, `onset` and `duration` (seconds). A row without onset and
duration labels the whole recording. With a labels.csv, annotations inside the files
are not read; without one, their annotations that last are the labels.

The classes are the labels in alphabetical order. The rest of the time is unlabelled,
except that it becomes the class `background` (the first one) where a row of that label
exists (one whole recording free of events is enough), or where one label alone, with
onsets, leaves nothing else to tell it from. A recording that labels.csv does not
mention, and a stretch labelled `unlabelled`, are never background.

A label may name several classes, with `;` between them: "AF;RBBB". Where one does, a
window has every class that covers enough of it, and the rest of the time of a recording
that labels.csv mentions has none. A label of ";" or `background` names no class.
"""

import csv
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eegkd.data.config import DataConfig
from eegkd.data.corpora import (
    SEPARATOR,
    UNLABELLED,
    Corpus,
    Source,
    folder_of,
    split_label,
)
from eegkd.data.recordings.reading import bids_word, read_events, read_recording
from eegkd.data.recordings.recording import Event, Recording
from eegkd.errors import InputError

BACKGROUND = "background"
LABELS_FILE = "labels.csv"
_COLUMNS = ("file", "subject", "onset", "duration", "label")
_SUFFIXES = (
    *(".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".lay"),
    *(".hea", ".eeg", ".mff", ".cdt", ".nxe", ".nedf", ".mefd"),
)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One line of labels.csv; no onset means the whole recording."""

    line: int
    subject: str
    label: str
    onset_s: float | None
    duration_s: float | None


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of `config.root`; its classes come from its labels.

    Raises:
        InputError: If there is no recording, or labels.csv does not fit them.
    """
    root = folder_of(config.root, "folder")
    files = _recordings(root)
    if not files:
        raise InputError(
            f"{root}: no recording in it (known suffixes: {' '.join(_SUFFIXES)}). Set "
            "--data.root to the folder of the recordings."
        )
    table = _read_labels(root / LABELS_FILE, files)
    if table is None:
        labelled = [(e.label, True) for f in files for e in _lasting(read_events(f))]
    else:
        labelled = [
            (row.label, row.onset_s is not None)
            for rows in table.values()
            for row in rows
        ]
    several = table is not None and any(SEPARATOR in name for name, _ in labelled)
    if several:
        names = {name for text, _ in labelled for name in split_label(text)}
        classes, background = tuple(sorted(names - {UNLABELLED, BACKGROUND})), None
    else:
        classes, background = _classes(labelled)
    sources = tuple(
        _source(root, file, None if table is None else table.get(file, ()), config)
        for file in files
    )
    has_subjects = all(source.subject for source in sources)
    return Corpus(
        name="folder",
        classes=classes,
        background=background,
        list_sources=functools.partial(_list, sources),
        read=functools.partial(_read, background is not None or several, several),
        defaults={},
        has_subjects=has_subjects,
        licence="the user's own",
        options=("unit",),
        multilabel=several,
    )


def _list(sources: tuple[Source, ...], root: Path) -> tuple[Source, ...]:
    """Returns sources, with the recording in place of a person that nothing names."""
    return tuple(
        source if source.subject else source._replace(subject=source.recording_id)
        for source in sources
    )


def _recordings(root: Path) -> tuple[Path, ...]:
    """Lists recordings below a folder, but no hidden files or insides of .mff."""
    found: list[Path] = []
    for path in sorted(root.iterdir()):
        name = path.name.lower()
        is_recording = name.endswith(_SUFFIXES)
        # BrainVision keeps its samples in a .eeg next to the .vhdr that is read.
        is_samples = name.endswith(".eeg") and path.with_suffix(".vhdr").exists()
        if name.startswith("."):
            continue
        if is_recording and not is_samples:
            found.append(path)
        elif path.is_dir():
            found += _recordings(path)
    return tuple(found)


def _source(
    root: Path, file: Path, rows: Iterable[_Row] | None, config: DataConfig
) -> Source:
    relative = file.relative_to(root)
    named = "" if rows is None else _subject(root / LABELS_FILE, relative, rows)
    parent = relative.parts[0] if len(relative.parts) > 1 else ""
    events = None
    if rows is not None:
        events = tuple((r.line, r.onset_s, r.duration_s, r.label) for r in rows)
    return Source(
        recording_id=relative.as_posix(),
        path=file,
        subject=named or bids_word(relative, "sub") or parent,
        session=bids_word(relative, "ses"),
        info={"events": events, "unit": config.unit, "labels": LABELS_FILE},
    )


def _subject(labels: Path, file: Path, rows: Iterable[_Row]) -> str:
    named = sorted({row.subject for row in rows if row.subject})
    if len(named) > 1:
        raise InputError(
            f"{labels}: {file.as_posix()} is of subject {named[0]} in one row and of "
            f"{named[1]} in another. A recording has one subject."
        )
    return named[0] if named else ""


def _classes(
    labelled: Iterable[tuple[str, bool]],
) -> tuple[tuple[str, ...], str | None]:
    """Returns class names and the background class, from (label, has onset) pairs."""
    labelled = [pair for pair in labelled if pair[0] != UNLABELLED]
    names = sorted({label for label, _ in labelled})
    alone = len(names) == 1 and all(timed for _, timed in labelled)
    if BACKGROUND in names or alone:
        return (BACKGROUND, *(x for x in names if x != BACKGROUND)), BACKGROUND
    return tuple(names), None


def _read(rest_is_known: bool, several: bool, source: Source) -> Recording:
    """Reads one file; its events carry class names, or `unlabelled`."""
    recording = read_recording(source.path, units=source.info["unit"])
    rows = source.info["events"]
    if rows is None:
        events = _lasting(recording.events)
    else:
        events = tuple(_event(source, recording, *row) for row in rows)
        if several:
            events = tuple(
                dataclasses.replace(event, label=name)
                for event in events
                for name in split_label(event.label)
            )
        if not rows and rest_is_known:
            whole = recording.duration_s
            events = (Event(onset_s=0.0, duration_s=whole, label=UNLABELLED),)
    if rest_is_known:
        events = tuple(event for event in events if event.label != BACKGROUND)
    return dataclasses.replace(
        recording,
        events=tuple(sorted(events, key=lambda event: event.onset_s)),
        subject=source.subject,
        session=source.session,
    )


def _lasting(events: Iterable[Event]) -> tuple[Event, ...]:
    return tuple(event for event in events if event.duration_s > 0 and event.label)


def _event(
    source: Source,
    recording: Recording,
    line: int,
    onset_s: float | None,
    duration_s: float | None,
    label: str,
) -> Event:
    length = recording.duration_s
    if onset_s is None or duration_s is None:
        return Event(onset_s=0.0, duration_s=length, label=label)
    if onset_s + duration_s > length + 1:
        raise InputError(
            f"{source.info['labels']}, line {line}: {label!r} at {onset_s:g} s for "
            f"{duration_s:g} s ends after {source.path} does ({length:g} s). Times are "
            "seconds from the start of that recording: are these its labels?"
        )
    return Event(onset_s=onset_s, duration_s=duration_s, label=label)


def _read_labels(
    path: Path, files: tuple[Path, ...]
) -> Mapping[Path, tuple[_Row, ...]] | None:
    """Reads rows of labels.csv by recording; None if there is no such file."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_columns(path, columns)
        lines = [(reader.line_num, _stripped(path, reader, line)) for line in reader]
    known = {file.resolve(): file for file in files}
    rows: dict[Path, tuple[_Row, ...]] = {}
    lost = []
    for number, cells in lines:
        file = known.get((path.parent / cells["file"]).resolve())
        if file is None:
            lost.append((number, cells["file"]))
        else:
            rows[file] = (*rows.get(file, ()), _row(path, number, cells))
    if lines and not rows:
        raise InputError(
            f"{path} names none of the recordings in {path.parent} (first: "
            f"{lost[0][1]!r}): it belongs to other recordings. Column file is relative "
            "to the folder."
        )
    if lost:
        raise InputError(
            f"{path}, line {lost[0][0]}: no recording {lost[0][1]!r} in {path.parent} "
            f"({len(lost)} such rows). Column file is relative to the folder; correct "
            "it or remove the row."
        )
    return rows


def _check_columns(path: Path, columns: list[str]) -> None:
    unknown = [name for name in columns if name not in _COLUMNS]
    missing = [name for name in ("file", "label") if name not in columns]
    if unknown or missing:
        what = (
            f"unknown column {unknown[0]!r}" if unknown else f"no column {missing[0]}"
        )
        raise InputError(
            f"{path}: {what}. Its first line must name the columns, of "
            f"{','.join(_COLUMNS)}; file and label are required."
        )


def _stripped(
    path: Path, reader: Any, line: Mapping[str | None, Any]
) -> dict[str, str]:
    if None in line or None in line.values():
        raise InputError(
            f"{path}, line {reader.line_num}: not as many cells as columns. Put text "
            "that holds a comma in double quotes."
        )
    return {str(name): str(cell).strip() for name, cell in line.items()}


def _row(path: Path, number: int, cells: Mapping[str, str]) -> _Row:
    if not cells["label"]:
        raise InputError(
            f"{path}, line {number}: the label is empty. Fill it in, or remove the "
            "row: a recording without a row is unlabelled."
        )
    onset, duration = (cells.get(name, "") for name in ("onset", "duration"))
    if bool(onset) != bool(duration):
        raise InputError(
            f"{path}, line {number}: give both onset and duration in seconds, or "
            "neither to label the whole recording."
        )
    return _Row(
        number,
        cells.get("subject", ""),
        cells["label"],
        _seconds(path, number, "onset", onset, least=0.0),
        _seconds(path, number, "duration", duration, least=1e-9),
    )


def _seconds(
    path: Path, number: int, column: str, text: str, *, least: float
) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise InputError(
            f"{path}, line {number}: {column} {text!r} is no number of seconds that "
            f"could be one. Write for example {column} 12.5."
        )
    return value
