"""A BIDS data set: EEG and iEEG recordings with the tables that lie beside them.

Each recording is cut and labelled as its data set says: people and sessions by names of
folders, `split-` parts joined, channels' kinds, units and marks by `channels.tsv`,
labels and bad stretches by `events.tsv`. Tables and JSON files are found by the
inheritance principle. Whatever contradicts the recording is an error.

The label of an event is its `trial_type`; where no table fills that, its `eventType`
(SzCORE), else its `value`. `--data.label` names another column: of events, or of
`participants.tsv`, `sessions.tsv` or `scans.tsv`, or an entity (`task`), which label
whole recordings. `--data.classes` lists the labels that are classes (all), and
`--data.entities` the recordings to read (`task-rest`).

Events that last label the windows that they cover. The rest of the time is unlabelled,
except that it becomes `background` where a row has that label (or is SzCORE's `bckg`),
or where one label alone leaves nothing else to tell it from. It is no background where
a recording has no events.tsv, where a label that is no class lasts, and from an event
of unknown duration to the next one. With `--data.trials` one window is cut from the
onset of every event, however long it lasts.

References:
    Pernet et al. 2019, EEG-BIDS, Scientific Data 6, 103; BIDS 1.10;
    Dan et al. 2024, SzCORE, Epilepsia.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.data.bids.classes import class_of, settle_classes
from eegkd.data.bids.doubts import tell_doubts, tell_untimed
from eegkd.data.bids.events import (
    SPLICES,
    SZCORE_COLUMN,
    EventRow,
    read_events,
    to_classes,
)
from eegkd.data.bids.labels import EVENTS, find_labelling, label_recordings
from eegkd.data.bids.layout import BidsFile, Dataset, read_dataset
from eegkd.data.bids.metadata import Metadata, check_metadata
from eegkd.data.bids.people import check_people
from eegkd.data.bids.sidecars import find_events, read_channels
from eegkd.data.bids.tables import read_table
from eegkd.data.config import DataConfig
from eegkd.data.corpora import UNLABELLED, Corpus, Source, folder_of
from eegkd.data.folders.annotations import too_short
from eegkd.data.folders.kinds import parts_of_others
from eegkd.data.folders.people import quoted
from eegkd.data.recordings.names import canonical_names
from eegkd.data.recordings.reading import read_recording
from eegkd.data.recordings.recording import Event, Recording, Span
from eegkd.data.windows.cutting import GENERAL
from eegkd.errors import InputError

_TIMES = ("onset", "duration")
_NONE = ("", UNLABELLED)
_RATE_DIFFERS = 1e-3
_ROUNDING_SAMPLES = 2


class _Timed(NamedTuple):
    """Rows of one table of events.

    Attributes:
        table: Its name below the root.
        part: Number of the part that its times begin with; None for the recording.
        rows: Rows that matter to windows.
    """

    table: str
    part: int | None
    rows: tuple[EventRow, ...]


def make_corpus(config: DataConfig) -> Corpus:
    """Returns the corpus of `config.root`; its classes come from its tables.

    Raises:
        InputError: If it is no BIDS data set, or its tables contradict each other or
            the options.
    """
    dataset = read_dataset(folder_of(config.root, "bids"), config.entities)
    notes = check_people(dataset)
    metadata = check_metadata(dataset, config)
    places = [find_events(dataset, files) for files in dataset.recordings]
    tables = {path: read_table(path, _TIMES) for found in places for path in found}
    labelling = find_labelling(dataset, tables.values(), config.label)
    column = labelling.column if labelling.table == EVENTS else ""
    found = {path: read_events(table, column) for path, table in tables.items()}
    rows = {path: events.rows for path, events in found.items()}
    # A recording without a table of events is not free of them.
    whole = tuple("" if found else UNLABELLED for found in places)
    if labelling.table and not column:
        whole = tuple(x or UNLABELLED for x in label_recordings(dataset, labelling))
    # SzCORE's types of seizures; a table of BIDS may repeat them as trial_type.
    subtypes = column in ("trial_type", SZCORE_COLUMN) and any(
        SZCORE_COLUMN in table.columns for table in tables.values()
    )
    short, words = _too_short(config, dataset, column, rows, subtypes)
    labels = {row.label for own in rows.values() for row in own if row.label}
    # What never has an onset is a label all the same: it tells others from one alone.
    labels |= {label for events in found.values() for _, label in events.untimed}
    classes = settle_classes(
        [*labels, *whole],
        config.classes,
        too_short=short,
        alone=bool(column),
        subtypes=subtypes,
    )
    if config.trials:
        classes = classes._replace(background=None)
    whole = tuple(classes.of[label] if label else "" for label in whole)
    events = {
        path: to_classes(table, rows[path], classes, trials=config.trials)
        for path, table in tables.items()
    }
    sources = _sources(dataset, config.unit, metadata, places, whole, events)
    return Corpus(
        name="bids",
        classes=classes.names,
        background=classes.background,
        list_sources=functools.partial(_list, sources),
        read=functools.partial(
            _read,
            background=classes.background,
            trial_s=(config.window_s or GENERAL["window_s"]) if config.trials else None,
        ),
        defaults={},
        licence=str(dataset.description.get("License") or "not stated"),
        trials=config.trials,
        options=(
            *("unit", "label", "classes", "entities", "trials"),
            *("window_s", "positive_fraction", "rate", "montage", "notch"),
        ),
        notes=(
            *notes,
            *words,
            *tell_untimed(dataset, found),
            *tell_doubts(dataset, labelling, labels),
        ),
    )


def _sources(
    dataset: Dataset,
    unit: str | None,
    metadata: Sequence[Metadata],
    places: Sequence[Mapping[Path, int | None]],
    whole: Sequence[str],
    events: Mapping[Path, tuple[EventRow, ...]],
) -> tuple[Source, ...]:
    """Puts together what a worker needs to know of each recording."""
    return tuple(
        Source(
            recording_id=_name(dataset, files[0].path),
            path=files[0].path,
            subject=files[0].entities["sub"],
            session=files[0].entities.get("ses", ""),
            info={
                "unit": unit,
                "label": label,
                "events": [
                    _Timed(_name(dataset, path), part, events[path])
                    for path, part in found.items()
                ],
                "metadata": about,
                "channels": [read_channels(dataset, file) for file in files],
                "parts": _parts(files, found),
            },
        )
        for files, found, label, about in zip(
            dataset.recordings, places, whole, metadata, strict=True
        )
    )


def _parts(
    files: Sequence[BidsFile], events: Mapping[Path, int | None]
) -> list[tuple[str, int, bool]]:
    """Lists the parts of a recording: name, size, and whether it is to be read.

    A FIF file names the one that it continues in, which is then read with it.
    """
    paths = [file.path for file in files]
    inner = parts_of_others(paths) if len(paths) > 1 else {}
    if inner and any(part is not None for part in events.values()):
        raise InputError(
            f"{paths[0]} continues in {next(iter(inner)).name} and is read with it, so "
            "it has one clock: put the events of its parts into one events.tsv without "
            "split- in its name."
        )
    return [(path.name, path.stat().st_size, path not in inner) for path in paths]


def _list(sources: tuple[Source, ...], root: Path) -> tuple[Source, ...]:
    return sources


def _name(dataset: Dataset, path: Path) -> str:
    return path.relative_to(dataset.root).as_posix()


def _too_short(
    config: DataConfig,
    dataset: Dataset,
    column: str,
    rows: Mapping[Path, Sequence[EventRow]],
    subtypes: bool,
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Finds labels of events that are too short to label any window.

    A label needs `positive_fraction` of some window, less two samples for rounding;
    where that is nothing, all are long enough. Trials need no length.

    Returns:
        The labels, and a sentence about them.

    Raises:
        InputError: If all are, or trials are wanted of events without labels.
    """
    root = dataset.root
    if config.trials and not column:
        raise InputError(
            f"--data.trials takes a window from every event, but no event of {root} "
            "has a label. Leave it out, or name a column of events.tsv with "
            "--data.label."
        )
    window_s = config.window_s or GENERAL["window_s"]
    least_s = config.positive_fraction * window_s
    spare_s = _ROUNDING_SAMPLES / (config.rate or GENERAL["rate"])
    wanted = config.classes

    def is_wanted(label: str) -> bool:
        return not wanted or class_of(label, wanted, subtypes) != UNLABELLED

    stretches = [
        [
            (r.onset_s, r.duration_s or 0.0, r.label)
            for r in found
            if r.label not in _NONE and is_wanted(r.label)
        ]
        for found in rows.values()
    ]
    if config.trials or least_s <= spare_s:
        return frozenset(), ()
    found = too_short(stretches, window_s=window_s, least_s=least_s - spare_s)
    labels = {label for own in stretches for *_, label in own}
    if not found:
        return frozenset(), ()
    names, longest = quoted(sorted(found)), max(found.values())
    cure = (
        "Cut one window from the onset of each event with --data.trials True, or lower "
        "--data.window_s"
    )
    if labels == set(found):
        raise InputError(
            f"{root}: no event is long enough to label a window of {window_s:g} s, "
            f"which takes {least_s:g} s: those of {column} ({names}) last at most "
            f"{longest:g} s. {cure}, or label whole recordings with --data.label."
        )
    return frozenset(found), (
        f"No classes, since no window of {window_s:g} s can have them: the events "
        f"{names}, which last at most {longest:g} s. {cure}.",
    )


def _read(
    source: Source, *, background: str | None, trial_s: float | None
) -> Recording:
    """Reads a recording with its parts; its events carry class names."""
    recording, starts = _joined(source)
    _check_rate(source, recording)
    length = recording.duration_s
    events, spans = [], list(recording.bad_spans)
    label = source.info["label"]
    if label:
        events.append(Event(onset_s=0.0, duration_s=length, label=label))
    for timed in source.info["events"]:
        first, stop = 0.0, length
        if timed.part is not None:
            first, stop = (*starts, length)[timed.part : timed.part + 2]
        for row in timed.rows:
            _check_inside(source, timed.table, row, stop - first)
            rest = stop - first - row.onset_s
            duration = rest if row.duration_s is None else row.duration_s
            place: dict[str, Any] = {
                "onset_s": first + row.onset_s,
                "duration_s": duration if trial_s is None else trial_s,
                "channels": canonical_names(row.channels),
            }
            if row.bad:
                spans.append(Span(**place | {"duration_s": duration}, reason=row.bad))
            else:
                events.append(Event(**place, label=row.label))
    _check_splices(source, spans)
    dropped = (background,) if background else (UNLABELLED,)
    events = [event for event in events if event.label not in dropped]
    return dataclasses.replace(
        recording,
        events=tuple(sorted(events, key=lambda event: event.onset_s)),
        # Tables often repeat what the file marks itself.
        bad_spans=tuple(dict.fromkeys(sorted(spans, key=lambda span: span.onset_s))),
        subject=source.subject,
        session=source.session,
    )


def _joined(source: Source) -> tuple[Recording, tuple[float, ...]]:
    """Reads the parts of a recording as one, and returns where each begins."""
    info = source.info
    parts = [
        read_recording(source.path.parent / name, units=info["unit"], facts=facts)
        for (name, _, own), facts in zip(info["parts"], info["channels"], strict=True)
        if own
    ]
    first = parts[0]
    if len(parts) == 1:
        return first, (0.0,)
    for part in parts:
        for name in ("channels", "kinds", "units", "rate"):
            if getattr(part, name) != getattr(first, name):
                raise InputError(
                    f"{part.source}: its {name} differ from those of {first.source}, "
                    "though both are parts of one recording. Correct the tables beside "
                    "them, or name the recording in .bidsignore."
                )
    starts = np.cumsum([0, *(part.signal.shape[1] for part in parts)]) / first.rate
    spans = tuple(
        dataclasses.replace(span, onset_s=span.onset_s + start)
        for part, start in zip(parts, starts, strict=False)
        for span in part.bad_spans
    )
    bad = dict.fromkeys(name for part in parts for name in part.bad_channels)
    joined = dataclasses.replace(
        first,
        signal=np.concatenate([part.signal for part in parts], axis=1),
        bad_channels=tuple(bad),
        bad_spans=spans,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )
    return joined, tuple(map(float, starts[:-1]))


def _check_rate(source: Source, recording: Recording) -> None:
    stated = source.info["metadata"].rate
    if not stated or abs(stated - recording.rate) <= _RATE_DIFFERS * stated:
        return
    # Of a file with several rates this is the highest.
    if not recording.resampled or stated > recording.rate:
        raise InputError(
            f"{source.path}: {recording.rate:g} samples a second, but {stated:g} by "
            "the SamplingFrequency of its JSON files. Correct it there, or copy the "
            "recording again."
        )


def _check_inside(source: Source, table: str, row: EventRow, length: float) -> None:
    """Refuses a row that is not of this recording."""
    if row.onset_s + (row.duration_s or 0.0) > length + 1:
        raise InputError(
            f"{table}, line {row.line}: {row.label or row.bad!r} at {row.onset_s:g} s "
            f"for {row.duration_s or 0:g} s ends after {source.path} does ({length:g} "
            "s). Times are seconds from the start of that recording: correct the row, "
            "or copy the recording again."
        )


def _check_splices(source: Source, spans: Sequence[Span]) -> None:
    """Refuses a recording with gaps that nothing marks."""
    # The first "New Segment" of a file is its start.
    marked = any(span.reason in SPLICES and span.onset_s > 0 for span in spans)
    if source.info["metadata"].spliced and not marked:
        raise InputError(
            f"{source.path}: its RecordingType is discontinuous, and neither the file "
            "nor its events.tsv says where the gaps are. Add a row 'boundary' to "
            "events.tsv at each."
        )
