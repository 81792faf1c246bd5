"""Rows of events.tsv: labels with times, and stretches that are not to be used."""

import bisect
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eegkd.data.bids.classes import Classes
from eegkd.data.bids.tables import Row, Table, is_missing, read_number
from eegkd.data.corpora import UNLABELLED
from eegkd.data.folders.labels import BACKGROUND
from eegkd.data.recordings.signals import is_bad
from eegkd.errors import InputError

LABEL_COLUMNS = ("trial_type", "eventType", "value")
"""Columns that label where the user names none, the first that a data set fills."""

SZCORE_COLUMN = "eventType"
_SZCORE_BACKGROUND = "bckg"
SPLICES = ("boundary", "New Segment", "EDGE boundary", "BAD boundary", "BAD_ACQ_SKIP")
"""Names of gaps: a table's get the first, the others are those of files."""

_WHOLE = re.compile(r"^(-?\d+)\.0+$")
_SPLICE = re.compile(r"boundary|new segment(/.*)?", re.IGNORECASE)


class EventRow(NamedTuple):
    """One line of events.tsv.

    Attributes:
        line: Its number in the file.
        onset_s: Seconds from the start of the recording.
        duration_s: 0 is a point in time, None unknown.
        label: Cell of the column that labels; "" if it says nothing.
        bad: Why the stretch is not to be used; "" if it is.
        channels: Channels concerned; () is all of them.
    """

    line: int
    onset_s: float
    duration_s: float | None
    label: str
    bad: str
    channels: tuple[str, ...]


class Events(NamedTuple):
    """Rows of a table that have an onset, and lines and labels of those that do not."""

    rows: tuple[EventRow, ...]
    untimed: tuple[tuple[int, str], ...]


def read_events(table: Table, column: str) -> Events:
    """Reads the rows of a table that have a label, or mark a bad stretch.

    SzCORE's "bckg" is `BACKGROUND`. Bad are rows whose `trial_type` (or label)
    begins with BAD or EDGE, as MNE has it; a "boundary" is a splice, which has no
    duration in the recording, whatever its row says.

    Args:
        table: `events.tsv`; with no row, it may lack the column.
        column: Column that labels; "" if none does.

    Raises:
        InputError: If the column is missing, or a time is no number.
    """
    if column and table.rows and column not in table.columns:
        raise InputError(
            f"{table.path}: no column {column}, which labels in other tables of the "
            f"data set (this one has {', '.join(table.columns)}). Name a column that "
            "all have with --data.label, or choose recordings with --data.entities."
        )
    events = [_event(table, row, column) for row in table.rows]
    said = [event for event in events if event.label or event.bad]
    return Events(
        tuple(event for event in said if not math.isnan(event.onset_s)),
        tuple((e.line, e.label) for e in said if e.label and math.isnan(e.onset_s)),
    )


def _event(table: Table, row: Row, column: str) -> EventRow:
    """Reads a row; its onset is NaN where it has none."""
    onset = read_number(table, row, "onset")
    duration = read_number(table, row, "duration")
    if duration is not None and duration < 0:
        raise InputError(
            f"{table.path}, line {row.line}: the duration {duration:g} s is below 0. "
            "Write 0 for a point in time, or n/a."
        )
    onset = math.nan if onset is None else onset
    label = read_label(row, column)
    if label == _SZCORE_BACKGROUND:
        label = BACKGROUND
    named = (label, read_label(row, LABEL_COLUMNS[0]))
    bad = next((text for text in named if is_bad(text)), "")
    if any(_SPLICE.fullmatch(text) for text in named):
        bad, duration = SPLICES[0], 0.0
    channels = row.cells.get("channels", "")
    everywhere = is_missing(channels) or channels == "all"
    names = () if everywhere else tuple(n.strip() for n in channels.split(","))
    return EventRow(row.line, onset, duration, "" if bad else label, bad, names)


def read_label(row: Row, column: str) -> str:
    """Returns the label in a cell, "" if it is missing.

    Whole numbers that a program wrote as decimals ("2.0", beside an n/a) lose them.
    """
    text = row.cells.get(column, "")
    if is_missing(text):
        return ""
    return _WHOLE.sub(r"\1", text)


def to_classes(
    table: Table, rows: Sequence[EventRow], classes: Classes, *, trials: bool
) -> tuple[EventRow, ...]:
    """Returns the rows that matter to windows, with classes as their labels.

    Points in time label no window, unless each is a trial. What lasts and is no class
    is not background, nor is what follows an event of unknown duration up to the next
    one: these are `UNLABELLED`. A duration of None then means up to the end.

    Raises:
        InputError: If two rows give one stretch different classes.
    """
    onsets = sorted({row.onset_s for row in rows})
    kept = [_until_next(row, onsets) for row in rows if row.bad]
    labelled = [row for row in rows if not row.bad]
    known = [row._replace(label=classes.of[row.label]) for row in labelled]
    judged = [row for row in known if row.label != UNLABELLED]
    _check_contradictions(table, judged, trials)
    if trials:
        return (*kept, *judged)
    kept += [row for row in judged if row.duration_s]
    if classes.background is None:
        return tuple(kept)
    kept += [row for row in known if row.label == UNLABELLED and row.duration_s]
    unknown = (row for row in judged if row.duration_s is None)
    kept += [_until_next(row, onsets)._replace(label=UNLABELLED) for row in unknown]
    return tuple(kept)


def _until_next(row: EventRow, onsets: Sequence[float]) -> EventRow:
    """Returns a row that lasts to the next onset if its own duration is unknown."""
    later = bisect.bisect_right(onsets, row.onset_s)
    if row.duration_s is not None or later == len(onsets):
        return row
    return row._replace(duration_s=onsets[later] - row.onset_s)


def _check_contradictions(table: Table, rows: Iterable[EventRow], trials: bool) -> None:
    """Refuses two classes of one stretch; of trials, from one onset on."""
    seen: dict[tuple[float, float | None], EventRow] = {}
    for row in rows:
        if not trials and not row.duration_s:
            continue
        first = seen.setdefault((row.onset_s, None if trials else row.duration_s), row)
        if first.label != row.label:
            raise InputError(
                f"{table.path}, lines {first.line} and {row.line}: {first.label!r} and "
                f"{row.label!r} at {row.onset_s:g} s. A window has one class: list "
                "those that are with --data.classes, or correct the table."
            )
