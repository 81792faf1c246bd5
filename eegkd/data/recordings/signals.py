"""What a reader of one format hands over, before names, kinds and units are settled."""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eegkd.data.recordings.names import canonical_names
from eegkd.data.recordings.recording import Event, Kind, Span

VOLTS: Mapping[str, float] = {"nV": 1e-9, "uV": 1e-6, "mV": 1e-3, "V": 1.0}
_SPELLINGS: Mapping[str, str] = {
    **{"nv": "nV", "mv": "mV", "v": "V", "volt": "V", "volts": "V"},
    **dict.fromkeys(
        ("uv", "\u00b5v", "\u03bcv", "\x83\xcav", "microv", "microvolt"), "uV"
    ),
}
_NO_VOLTAGE = re.compile(
    r"%.*|percent|mmhg|cm ?h2o|[kh]?pa|m?bar|(deg ?|\u00b0 ?)?[cfk]|deg(rees)?\.?|"
    r"celsius|rad|bpm|b(eats)?/min|1/min|/min|rpm|k?hz|[kmg]?ohms?|[km]?\u03a9|"
    r"[mu\u00b5]?s|sec|min|h|m?g|m/s(\^?2|2)?|mm?|cm|nm|km|m?l(/(s|min))?|lpm|lux|lx|"
    r"db|ph|mg/dl|mmol/l|[mun\u00b5]?a|n|kg|w|bool(ean)?|on/off|position",
    re.IGNORECASE,
)
_BAD = re.compile(r"bad|edge(\W|_|$)", re.IGNORECASE)
_SPLICES = ("boundary", "New Segment/")
_LONGEST_S = 1e9


class Signals(NamedTuple):
    """Result of a reader.

    Attributes:
        numbers: `f64[c, t]`, as the file states them.
        names: Names as the file spells them.
        kinds: Kinds that the reader takes the channels for.
        dimensions: Physical dimensions as the file spells them; "" where it has none.
        rate: Samples per second.
        events: Events in time order.
        bad_spans: Stretches that the file marks as bad, and splices.
        bad_channels: Positions of channels that the file marks as bad, or that have no
            scale.
        slower: Positions of channels whose own rate was lower.
        notes: Sentences about what was read in another way than the file says.
        stated_kinds: Kinds that a table beside the file states, which hold whatever the
            names are; None where it does not say.
        date: Time of the first sample by the file's clock; None where it states none.
    """

    numbers: np.ndarray
    names: Sequence[str]
    kinds: Sequence[Kind]
    dimensions: Sequence[str]
    rate: float
    events: tuple[Event, ...] = ()
    bad_spans: tuple[Span, ...] = ()
    bad_channels: tuple[int, ...] = ()
    slower: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    stated_kinds: tuple[Kind | None, ...] = ()
    date: datetime.datetime | None = None


class Marks(NamedTuple):
    """Annotations of a file: events, and stretches that are not to be used."""

    events: tuple[Event, ...]
    bad_spans: tuple[Span, ...]
    notes: tuple[str, ...]


def voltage(dimension: str) -> str | None:
    """Returns "nV", "uV", "mV" or "V"; None where the dimension is none of these."""
    return _SPELLINGS.get(dimension.casefold())


def is_no_voltage(dimension: str) -> bool:
    """Checks whether a dimension is that of another quantity: mmHg, %, bpm."""
    return bool(_NO_VOLTAGE.fullmatch(dimension.strip()))


def sort_marks(
    marks: Iterable[tuple[float, float, str, Sequence[str]]],
) -> Marks:
    """Tells the events of a file from the stretches that it marks as bad.

    As in MNE-Python, a description that begins with BAD, or is EDGE (of a filter or a
    splice), marks a stretch to leave out. EEGLAB's "boundary" and BrainVision's "New
    Segment" are splices: their place counts, and their duration is that of what was cut
    out. Marks without a place in time (NaN, or more than a thousand million seconds
    away) or of negative duration are left out, and counted in the notes.

    Args:
        marks: Onset and duration in seconds, description and channel names.
    """
    events, spans, lost = [], [], []
    for onset, duration, text, names in marks:
        # Lone surrogates, as of names that are not UTF-8, can be written nowhere.
        label = str(text).encode("utf-8", "replace").decode()
        # EEGLAB has NaN where no duration was given.
        if label in _SPLICES or np.isnan(duration):
            duration = 0.0
        if not (abs(onset) <= _LONGEST_S and 0 <= duration <= _LONGEST_S):
            lost.append(label)
            continue
        place = {"onset_s": float(onset), "duration_s": float(duration)}
        channels = canonical_names(names)
        if is_bad(label):
            spans.append(Span(**place, reason=label.rstrip("/"), channels=channels))
        else:
            events.append(Event(**place, label=label, channels=channels))
    notes = ()
    if lost:
        notes = (
            f"{len(lost)} annotations have no place in time and were left out, the "
            f"first {lost[0]!r}",
        )
    return Marks(in_order(events), tuple(spans), notes)


def is_bad(label: str) -> bool:
    """Checks whether a label marks a stretch that is not to be used, or a splice."""
    return label in _SPLICES or _BAD.match(label) is not None


def in_order(events: Sequence[Event]) -> tuple[Event, ...]:
    """Returns events in time order."""
    return tuple(sorted(events, key=lambda event: event.onset_s))
