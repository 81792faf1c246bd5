"""What was left out of a store and why: kept by recording, and told in a few rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eegkd.data.recordings.recording import Recording
from eegkd.data.windows.cutting import Windows

MARKS = ("bad_channels", "left_out", "resampled_channels", "notes")
"""Fields of a recording's record that are there only where there was something."""
_SHOWN = 3


def marks_of(recording: Recording, windows: Windows) -> dict[str, Any]:
    """Returns what a recording's record holds beyond that of a sound recording.

    They are `bad_channels`, the number of windows `left_out` by reason,
    `resampled_channels` and `notes`, each only where there is one: a store of sound
    recordings keeps its fingerprint.
    """
    left_out = {reason: int(rows.sum()) for reason, rows in windows.left_out.items()}
    values = (recording.bad_channels, left_out, recording.resampled, recording.notes)
    return {name: value for name, value in zip(MARKS, values, strict=True) if value}


def describe_marks(
    recordings: Mapping[str, Mapping[str, Any]], left_out: str = "left out"
) -> Iterator[tuple[str, str]]:
    """Tells in rows of two cells what is known of recordings beyond their signals.

    Args:
        recordings: Records by the recordings' names, with what `marks_of` returns.
        left_out: What windows are that a bad span touches.
    """
    reasons = (record.get("left_out", ()) for record in recordings.values())
    for reason in sorted({name for names in reasons for name in names}):
        counts = {
            name: record["left_out"][reason]
            for name, record in recordings.items()
            if reason in record.get("left_out", ())
        }
        where = _some(f"{name} ({count})" for name, count in counts.items())
        total = sum(counts.values())
        windows = "window" if total == 1 else "windows"
        yield f"{left_out}: {reason}", f"{total} {windows}: {where}"
    for field, words in (
        ("bad_channels", "marked as bad"),
        ("resampled_channels", "resampled to the file's highest rate"),
    ):
        found = {n: r[field] for n, r in recordings.items() if field in r}
        if found:
            said = (f"{', '.join(names)} ({name})" for name, names in found.items())
            yield words, _some(said)
    notes = [
        (name, note) for name, r in recordings.items() for note in r.get("notes", ())
    ]
    if notes:
        yield "note", _some(f"{name}: {note}" for name, note in notes)


def or_filled(infos: Sequence[Mapping[str, Any]]) -> str:
    """Returns the other cure of channels that differ, where some are marked as bad."""
    bad = dict.fromkeys(x for info in infos for x in info.get("bad_channels", ()))
    if not bad:
        return ""
    return (
        f", or to all that are wanted: those that are marked as bad ({', '.join(bad)}) "
        "are filled in by --data.policy interpolate or mask"
    )


def _some(items: Iterator[str]) -> str:
    """Joins the first items, and counts the others."""
    every = list(items)
    more = f", and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
