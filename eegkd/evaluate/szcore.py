"""SzCORE annotation files: tab-separated events of one recording."""

import csv
import datetime
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eegkd.errors import InputError
from eegkd.evaluate.events import Detection
from eegkd.host.arrays import damage
from eegkd.host.atomic import write_atomic

COLUMNS = (
    "onset",
    "duration",
    "eventType",
    "confidence",
    "channels",
    "dateTime",
    "recordingDuration",
)
BACKGROUND = "bckg"
_TIME = "%Y-%m-%d %H:%M:%S"
_NONE = "n/a"


class SzcoreTable(NamedTuple):
    """Events of a file, background left out, with the recording's length and start."""

    events: tuple[Detection, ...]
    duration_s: float
    date_time: datetime.datetime | None


def write_szcore_tsv(
    path: str | os.PathLike[str],
    events: Sequence[Detection],
    *,
    duration_s: float,
    date_time: datetime.datetime | None = None,
    channels: Sequence[str] = (),
    trial_type: bool = False,
) -> Path:
    """Writes events, or one `bckg` row over the whole recording if there is none.

    Args:
        path: The `.tsv` file, written whole or not at all.
        events: Detections; a NaN confidence becomes "n/a".
        duration_s: Length of the recording.
        date_time: Start of the recording, if known.
        channels: Channels concerned; () is all of them.
        trial_type: Put the column that BIDS has for an event's kind after its duration.
    """
    if not events:
        events = [Detection(0.0, duration_s, label=BACKGROUND)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    own = ["trial_type"] if trial_type else []
    writer.writerow((*COLUMNS[:2], *own, *COLUMNS[2:]))
    for event in events:
        known = math.isfinite(event.confidence)
        writer.writerow(
            (
                f"{event.onset_s:.2f}",
                f"{event.duration_s:.2f}",
                *[event.label for _ in own],
                event.label,
                f"{event.confidence:.4f}" if known else _NONE,
                ",".join(channels) or "all",
                date_time.strftime(_TIME) if date_time else _NONE,
                f"{duration_s:.2f}",
            )
        )
    return write_atomic(path, buffer.getvalue())


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    text = row[column]
    if column == "confidence" and text == _NONE:
        return float("nan")
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.inf
    if not math.isfinite(value):
        raise InputError(
            f"{path}, line {line}: {column} is {text!r}; write a number of seconds."
        )
    return value


def read_szcore_tsv(path: str | os.PathLike[str]) -> SzcoreTable:
    """Reads events of a SzCORE file.

    Raises:
        InputError: If a column is missing, a number is malformed, or no row states
            the recording's length.
    """
    path = Path(path)
    cure = "A SzCORE file is a table of values between tabs, in UTF-8."
    with damage(path, cure), path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{path} has no column {', '.join(missing)}; a SzCORE file has the "
                f"tab-separated columns {', '.join(COLUMNS)}."
            )
        rows = list(enumerate(reader, start=2))
    if not rows:
        raise InputError(
            f"{path} has no row; write one {BACKGROUND!r} row if there is no event."
        )
    events = tuple(
        Detection(
            _number(path, line, row, "onset"),
            _number(path, line, row, "duration"),
            _number(path, line, row, "confidence"),
            row["eventType"],
        )
        for line, row in rows
        if row["eventType"] != BACKGROUND
    )
    line, first = rows[0]
    started = first["dateTime"]
    try:
        known = started not in (_NONE, "")
        date_time = datetime.datetime.strptime(started, _TIME) if known else None
    except ValueError:
        raise InputError(
            f"{path}, line {line}: dateTime is {started!r}; write it as "
            "2024-01-31 23:59:00 or n/a."
        ) from None
    return SzcoreTable(
        events, _number(path, line, first, "recordingDuration"), date_time
    )
