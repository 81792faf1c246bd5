"""Caps whose electrodes are not named by the 10-20 system.

A BioSemi cap of 128 names its electrodes A1..A32, B1..B32, C1..C32 and D1..D32: its C3
lies 102 degrees from the C3 of the 10-20 system, its A1 is the vertex and no ear.
Depth electrodes are named so too. Such names must never be taken for places.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from eegkd.data.recordings.names import is_electrode, split_pair
from eegkd.data.recordings.recording import Recording

Layout = Literal[
    "biosemi16", "biosemi32", "biosemi64", "biosemi128", "biosemi160", "biosemi256"
]

OWN = "own "
"""Begins the name of an electrode whose own name a 10-20 electrode has too."""
_LAST = {"A": 2, "C": 6, "F": 10, "I": 2, "M": 2, "O": 2, "P": 10, "T": 10}
"""Highest number that 10-10 and the older systems give after a single letter."""
_SINGLE = re.compile(r"([A-Z])(\d{1,3})")
_MOST_DEGREES = 7.0
_ROW = 32


def name_by_layout(recording: Recording, layout: Layout | None = None) -> Recording:
    """Returns the recording with names that are 10-20 names only where they mean it.

    A letter of whose numbers two or more are unknown to the 10-20 system (A3, B1, C7)
    is another scheme's; so are all letters from A to H where A and B are. An electrode
    of such a letter that could be taken for one of the 10-20 system is named "own C3".

    Args:
        recording: Recording as read.
        layout: Cap of the recording, by MNE's name; its electrodes are named by the
            10-20 system where one lies within 7 degrees, as MNE places both. None
            leaves them their own names, and so, with a note, does a recording that has
            more names which only the 10-20 system has than names which it lacks.
    """
    foreign = _foreign_letters(recording.channels)
    known = {} if layout is None else _mapping(layout)
    parts = {part for name in recording.channels for part in name.split("-")}
    plain = {part for part in parts - known.keys() if is_electrode(part)}
    if len(plain) > len(list(filter(_is_odd, parts & known.keys()))):
        known = {}
    if layout is not None and not known:
        note = f"electrodes have 10-20 names, not those of {layout}: they keep them"
        recording = dataclasses.replace(recording, notes=(*recording.notes, note))

    def rename(name: str) -> str:
        halves = tuple(name.split("-"))
        parts = halves if len(halves) == 2 and known.keys() >= set(halves) else ()
        parts = parts or split_pair(name) or (name,)
        if all(part in known for part in parts):
            return "-".join(known[part] for part in parts)
        own = any(part[0] in foreign for part in parts if is_electrode(part))
        own = own or not known.keys().isdisjoint(parts)
        return OWN + name if own else name

    new = {name: rename(name) for name in recording.channels}
    if all(name == renamed for name, renamed in new.items()):
        return recording

    def of(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(new.get(name, name) for name in names)

    return dataclasses.replace(
        recording,
        channels=of(recording.channels),
        bad_channels=of(recording.bad_channels),
        resampled=of(recording.resampled),
        bad_spans=tuple(
            dataclasses.replace(span, channels=of(span.channels))
            for span in recording.bad_spans
        ),
        events=tuple(
            dataclasses.replace(event, channels=of(event.channels))
            for event in recording.events
        ),
    )


def scheme_hint(recording: Recording, missing: Sequence[str]) -> str:
    """Returns a sentence on another scheme of names, where that is why some miss."""
    wanted = [part for name in missing for part in split_pair(name) or (name,)]
    if not any(map(is_electrode, wanted)):
        return ""
    own = next((n for n in wanted if OWN + n in recording.channels), None)
    if own is not None:
        return (
            f" The {own} of this file is of another scheme than 10-20, as other names "
            "in it show: name its cap (--data.layout biosemi128, say) for 10-20 names, "
            f"or ask for {OWN + own!r}."
        )
    numbered = [n for n in recording.channels if re.fullmatch(r"E?\d{1,3}|B\d+", n)]
    if 2 * len(numbered) > len(recording.channels):
        return (
            f" Its names ({', '.join(numbered[:3])}, ...) are those of a cap: give its "
            "--data.layout if it is BioSemi's, else rename the channels in the file."
        )
    return ""


def _is_odd(name: str) -> bool:
    """Checks whether a name is a letter and a number that no 10-20 electrode has."""
    found = _SINGLE.fullmatch(name)
    return found is not None and int(found[2]) > _LAST.get(found[1], 0)


def _foreign_letters(names: Sequence[str]) -> frozenset[str]:
    parts = {part for name in names for part in name.split("-")}
    letters = [part[0] for part in parts if _is_odd(part)]
    foreign = {letter for letter in letters if letters.count(letter) > 1}
    return frozenset(foreign | set("ABCDEFGH") if {"A", "B"} <= foreign else foreign)


@functools.cache
def _mapping(layout: Layout) -> Mapping[str, str]:
    """Returns the 10-20 names of a cap's electrodes, by their own, or "own C3"."""
    names, places = _places(layout)
    if "A1" not in names:  # MNE names those of small caps by 10-20, in their order.
        own = [f"{'AB'[i // _ROW]}{i % _ROW + 1}" for i in range(len(names))]
        return dict(zip(own, names, strict=True))
    # All of MNE's BioSemi caps lie on one sphere.
    targets, spots = _places("biosemi64")
    degrees = np.degrees(np.arccos(np.clip(spots @ places.T, -1, 1)))
    nearest = degrees.argmin(axis=1)
    found = {
        names[place]: target
        for target, place, row in zip(targets, nearest, degrees, strict=True)
        if row[place] <= _MOST_DEGREES
    }
    return {
        name: found.get(name, OWN + name if is_electrode(name) else name)
        for name in names
    }


def _places(layout: Layout) -> tuple[list[str], np.ndarray]:
    import mne

    found = mne.channels.make_standard_montage(layout).get_positions()["ch_pos"]
    places = np.array(list(found.values()))
    return list(found), places / np.linalg.norm(places, axis=1, keepdims=True)
