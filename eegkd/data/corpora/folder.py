"""Anyone's own recordings: a folder of files, with or without a `labels.csv`.

Every file below the folder whose suffix is that of a recording is one, unless it is a
part of another, or holds something else (`eegkd.data.folders`). Its person is the
`subject` of labels.csv, else the BIDS word `sub-XX` in its path, else its sub-folder or
what `--data.subject_from` says, else unknown: then it is a group of its own in folds.

`labels.csv` lies at the top, with the columns `file` (relative to the folder), `label`
and, as wanted, `subject`, `onset` and `duration` (seconds). A row without onset and
duration labels the whole recording. With a labels.csv, annotations inside the files
are not read; without one, their annotations that last are the labels, and those of an
EDF+ file without signals that lies beside its recording. Of them, labels that can cover
too little of any window are no classes.

The classes are the labels in alphabetical order. The rest of the time is unlabelled,
except that it becomes the class `background` (the first one) where a row of that label
exists (one whole recording free of events is enough), or where one label alone, with
onsets, leaves nothing else to tell it from. A recording that labels.csv does not
mention, and a stretch labelled `unlabelled`, are never background. A label that begins
with BAD or EDGE is no class: windows that it touches are unlabelled.

A label may name several classes, with `;` between them: "AF;RBBB". Where one does, a
window has every class that covers enough of it, and the rest of the time of a recording
that labels.csv mentions has none. A label of ";" or `background` names no class.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.data.config import DataConfig
from eegkd.data.corpora import (
    SEPARATOR,
    UNLABELLED,
    Corpus,
    Source,
    folder_of,
    split_label,
)
from eegkd.data.folders.annotations import label_files, read_stages, too_short
from eegkd.data.folders.copies import equal_recordings
from eegkd.data.folders.labels import (
    BACKGROUND,
    LABELS_FILE,
    Row,
    Table,
    check_rows,
    find_labels,
    read_labels,
)
from eegkd.data.folders.listing import SUFFIXES, Listing, list_recordings
from eegkd.data.folders.names import labels_alike
from eegkd.data.folders.people import name_people
from eegkd.data.recordings.reading import bids_word, read_events, read_recording
from eegkd.data.recordings.recording import Event, Recording
from eegkd.data.recordings.signals import is_bad, sort_marks
from eegkd.data.windows.cutting import GENERAL
from eegkd.errors import InputError, quoted


class _Labels(NamedTuple):
    """Labels of a folder's recordings.

    Attributes:
        name: File that they come from; "" for annotations of the recordings.
        rows: Rows by recording; None for its own annotations, () for no label.
        pairs: Every label, and whether it has an onset.
        too_short: Labels of annotations that no window can get -> longest stretch.
        twice: Recordings with two labels on one stretch, each with the labels.
    """

    name: str
    rows: Mapping[Path, Sequence[Row] | None]
    pairs: Sequence[tuple[str, bool]]
    too_short: Mapping[str, float]
    twice: Mapping[Path, tuple[str, str]] = {}


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of `config.root`; its classes come from its labels.

    Raises:
        InputError: If there is no recording, labels.csv does not fit them, or persons
            or labels are in doubt.
    """
    root = folder_of(config.root, "folder")
    listing = list_recordings(root)
    files = listing.recordings
    if not files:
        raise _nothing(root, listing)
    found = find_labels(root)
    beside = dict.fromkeys(listing.stages.values(), "annotations")
    aside = {**listing.aside, **beside}
    table = None if found is None else read_labels(found, files, aside)
    people, notes = name_people(root, files, table, config.subject_from)
    notes += _check_copies(root, listing, people)
    if found is None or table is None:
        labels = _annotated(listing, config)
    else:
        labels = _tabled(found, files, table)
    several = table is not None and any(SEPARATOR in x for x, _ in labels.pairs)
    if found is not None and table is not None:
        check_rows(found, table, several=several)
    if several:
        names = {name for text, _ in labels.pairs for name in split_label(text)}
        names = {x for x in names - {UNLABELLED, BACKGROUND} if not is_bad(x)}
        classes, background = tuple(sorted(names)), None
    else:
        classes, background = _classes(labels.pairs)
    _check_labels(found or root, {UNLABELLED, *classes})
    sources = tuple(
        Source(
            recording_id=file.relative_to(root).as_posix(),
            path=file,
            subject=people[file],
            session=bids_word(file.relative_to(root), "ses"),
            info=_info(file, labels, listing, config),
        )
        for file in files
    )
    rest_is_known = background is not None or several
    return Corpus(
        name="folder",
        classes=classes,
        background=background,
        list_sources=functools.partial(_list, sources),
        read=functools.partial(
            _read, rest_is_known, several, frozenset(labels.too_short)
        ),
        defaults={},
        has_subjects=any(people.values()),
        licence="the user's own",
        options=("unit", "subject_from", "window_s", "positive_fraction", "rate"),
        multilabel=several,
        notes=(*notes, *_words(root, listing, labels, config)),
    )


def _nothing(root: Path, listing: Listing) -> InputError:
    aside = [f"{p.relative_to(root)} is {why}" for p, why in listing.aside.items()]
    others = f"; {aside[0]} ({len(aside)} such)" if aside else ""
    return InputError(
        f"{root}: no recording in it (known suffixes: {' '.join(SUFFIXES)}{others}). "
        "Set --data.root to the folder of the recordings."
    )


def _check_copies(
    root: Path, listing: Listing, people: Mapping[Path, str]
) -> tuple[str, ...]:
    """Refuses recordings with equal samples, except of one person that is named.

    Returns:
        What to tell the user of those.
    """
    groups = equal_recordings(listing.recordings, listing.others)
    names = [[f.relative_to(root).as_posix() for f in group] for group in groups]
    for group, same in zip(groups, names, strict=True):
        if len({people[file] for file in group}) > 1 or not people[group[0]]:
            raise InputError(
                f"{root}: {quoted(same)} hold the same samples under the names of "
                "different persons, or of nobody: copies would be trained and tested "
                "on. Leave one of them there."
            )
    return tuple(
        f"{quoted(same)} hold the same samples: they count {len(same)} times."
        for same in names
    )


def _annotated(listing: Listing, config: DataConfig) -> _Labels:
    """Reads annotations of the recordings, and of the files beside them."""
    rows = {file: None for file in listing.recordings}
    rows |= {file: read_stages(path) for file, path in listing.stages.items()}
    stretches = []
    for file, own in rows.items():
        if own is None:
            events = _lasting(read_events(file))
            found = [(e.onset_s, e.duration_s, e.label) for e in events]
        else:
            found = [(r.onset_s or 0.0, r.duration_s or 0.0, r.label) for r in own]
        stretches.append([x for x in found if x[2] != UNLABELLED and not is_bad(x[2])])
    short = too_short(
        stretches, window_s=_window_s(config), least_s=_least_s(config, rounding=2)
    )
    labels = {label for own in stretches for *_, label in own} - set(short)
    twice = {}
    for file, own in zip(rows, stretches, strict=True):
        first: dict[tuple[float, float], str] = {}
        for onset, duration, label in own:
            other = first.setdefault((onset, duration), label)
            if other != label:
                twice.setdefault(file, (other, label))
    return _Labels("", rows, [(label, True) for label in sorted(labels)], short, twice)


def _tabled(path: Path, files: Sequence[Path], table: Table) -> _Labels:
    pairs = [
        (row.label, row.onset_s is not None)
        for rows in table.values()
        for row in rows
        if not is_bad(row.label)
    ]
    return _Labels(path.name, {f: table.get(f, ()) for f in files}, pairs, {})


def _window_s(config: DataConfig) -> float:
    return config.window_s or GENERAL["window_s"]


def _least_s(config: DataConfig, rounding: int = 0) -> float:
    """Returns how much of a window a label must cover, less some samples."""
    spare = rounding / (config.rate or GENERAL["rate"])
    return config.positive_fraction * _window_s(config) - spare


def _info(
    file: Path, labels: _Labels, listing: Listing, config: DataConfig
) -> dict[str, Any]:
    rows, events = labels.rows[file], None
    if rows is not None:
        events = tuple((r.line, r.onset_s, r.duration_s, r.label) for r in rows)
    stages = listing.stages.get(file)
    name = labels.name or (stages.name if stages else LABELS_FILE)
    info = {"events": events, "unit": config.unit, "labels": name}
    # Files of the same stem belong to a source anyway; others make another one.
    parts = [path for path in listing.parts.get(file, ()) if path.stem != file.stem]
    if parts:
        info["parts"] = [(path.name, path.stat().st_size) for path in parts]
    return info


def _check_labels(where: Path, names: Iterable[str]) -> None:
    groups = labels_alike(sorted(names))
    if groups:
        raise InputError(
            f"{where}: the labels {quoted(groups[0])} mean the same, or differ by "
            f"their spelling alone ({len(groups)} such). Write one name for them in "
            f"{LABELS_FILE}, which annotations inside files give way to."
        )


def _words(
    root: Path, listing: Listing, labels: _Labels, config: DataConfig
) -> Iterable[str]:
    """Yields what else to tell the user: files left aside, and labels not used."""
    aside = {p.relative_to(root).as_posix(): why for p, why in listing.aside.items()}
    if labels.name:
        aside |= {
            path.relative_to(root).as_posix(): f"annotations; {labels.name} is read"
            for path in listing.stages.values()
        }
    if aside:
        texts = [f"{name} ({why})" for name, why in aside.items()]
        yield f"Left aside: {quoted(texts, 3, '{}')}."
    if listing.stages and not labels.name:
        file, stages = next(iter(listing.stages.items()))
        yield (
            f"Labels of {len(listing.stages)} recordings are read from annotations "
            f"beside them (first: {stages.name} for {file.name}), not from their own."
        )
    if labels.twice:
        file, both = next(iter(labels.twice.items()))
        first = f"{file.relative_to(root).as_posix()}, {quoted(both)}"
        yield (
            f"{len(labels.twice)} recordings have two annotations on one stretch "
            f"(first: {first}): the label that is later in the alphabet is taken. "
            f"Write {LABELS_FILE} where it is wrong."
        )
    if labels.too_short:
        longest = max(labels.too_short.values())
        yield (
            f"No classes, since no window of {_window_s(config):g} s can have them: "
            f"the annotations {quoted(labels.too_short)}. A label needs "
            f"{_least_s(config):g} s, and they last at most {longest:g} s: write the "
            f"stretches that they stand for into {LABELS_FILE}, or lower "
            "--data.window_s."
        )
    unused = [] if labels.name else label_files(listing.others)
    if unused:
        names = quoted((path.relative_to(root).as_posix() for path in unused), 3)
        yield (
            f"Not read, though they look like labels: {names}. Labels are read from "
            f"{LABELS_FILE} at the top of the folder."
        )
    if (root / "dataset_description.json").exists():
        yield (
            "This is a BIDS data set, and its tables of people, channels and events "
            "are not read: --data.corpus bids reads it with them."
        )


def _list(sources: tuple[Source, ...], root: Path) -> tuple[Source, ...]:
    """Returns sources, with the recording in place of a person that nothing names."""
    return tuple(
        source if source.subject else source._replace(subject=source.recording_id)
        for source in sources
    )


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


def _read(
    rest_is_known: bool, several: bool, left_out: frozenset[str], source: Source
) -> Recording:
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
    no_class = left_out | ({BACKGROUND} if rest_is_known else frozenset())
    marks = sort_marks(
        (event.onset_s, event.duration_s, event.label, event.channels)
        for event in events
        if event.label not in no_class
    )
    return dataclasses.replace(
        recording,
        events=marks.events,
        bad_spans=(*recording.bad_spans, *marks.bad_spans),
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
    # Stages of a file beside the recording may go on until the equipment was removed.
    if line and onset_s + duration_s > length + 1:
        raise InputError(
            f"{source.info['labels']}, line {line}: {label!r} at {onset_s:g} s for "
            f"{duration_s:g} s ends after {source.path} does ({length:g} s). Times are "
            "seconds from the start of that recording: are these its labels?"
        )
    return Event(onset_s=onset_s, duration_s=duration_s, label=label)
