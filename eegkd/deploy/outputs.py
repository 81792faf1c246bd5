"""Where predictions are written: named for their recordings, and over no others' files.

Beside each table lies a sidecar, a JSON of the same name. It says which recording the
table is of and how its columns are read, as in BIDS, and names the files that were
written with their hashes. What no sidecar names is somebody else's.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eegkd.deploy.bids import PROGRAM, BidsFile, find_bids, make_links
from eegkd.deploy.inputs import Input
from eegkd.errors import InputError
from eegkd.host.atomic import write_atomic
from eegkd.host.json_file import parse_json, read_text
from eegkd.host.sealed import hash_file
from eegkd.pipeline.folder import versions

Kind = Literal["events", "windows"]
_LONGEST = 180
_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "onset": {"Description": "Start, from the start of the recording", "Units": "s"},
    "duration": {"Description": "Length", "Units": "s"},
    "trial_type": {"Description": "The event, or the likeliest class of the window"},
    "eventType": {
        "Description": "Kind of event, as SzCORE names it",
        "Levels": {"sz": "Event found", "bckg": "No event in the whole recording"},
    },
    "confidence": {"Description": "Mean smoothed probability within the event"},
    "channels": {"Description": "Channels concerned"},
    "dateTime": {"Description": "Start of the recording, by its file's clock"},
    "recordingDuration": {"Description": "Length of the recording", "Units": "s"},
}


class Place(NamedTuple):
    """Files of one recording's predictions.

    Attributes:
        name: The recording's name in the folder of all predictions.
        table: The table.
        plot: The plot; None where there is none.
        source: The recording, as the sidecar names it.
        bids: True if the table is one of a BIDS dataset.
    """

    name: str
    table: Path
    plot: Path | None
    source: str
    bids: bool = False

    @property
    def sidecar(self) -> Path:
        """The sidecar."""
        return self.table.with_suffix(".json")


class Places(NamedTuple):
    """Output of several recordings.

    Attributes:
        of: A place for each, in order.
        links: Their BIDS datasets, by the name that sidecars give them.
    """

    of: tuple[Place, ...]
    links: Mapping[Path, str]


def choose_places(out: Path, inputs: Sequence[Input], kind: Kind) -> Places:
    """Names the output of recordings.

    A name is the folders that are kept and the file's whole name without its suffix.
    Where recordings share it, or it belongs to another recording already, the suffix
    stays, then the folder above is put before it, and so on. A recording of a BIDS
    dataset has its place in a derivative dataset.

    Args:
        out: Folder of the output.
        inputs: The recordings.
        kind: Kind of their table.

    Raises:
        InputError: If a file is in the way that `predict` did not write, or that was
            changed since.
    """
    of_bids = [None if given.member else find_bids(given.path) for given in inputs]
    links = make_links(out, [bids.root for bids in of_bids if bids is not None])
    places: dict[int, Place] = {}
    names: dict[int, Iterator[str]] = {}
    for i, (given, bids) in enumerate(zip(inputs, of_bids, strict=True)):
        if bids is None:
            names[i] = _names(given)
            continue
        places[i] = _bids_place(out, bids, links[bids.root], kind)
        if not _is_free(places[i]):
            raise InputError(
                f"{places[i].table} is of another recording than {given.path}. Choose "
                "another --out."
            )
    wanted = {i: next(own) for i, own in names.items()}
    while wanted:
        taken = {place.name.casefold() for place in places.values()}
        asked = [name.casefold() for name in wanted.values()]
        again = {}
        for i, name in wanted.items():
            place = _place(out, name, inputs[i], kind)
            alone = asked.count(name.casefold()) == 1 and name.casefold() not in taken
            if alone and _is_free(place):
                places[i] = place
            else:
                again[i] = next(names[i])
        wanted = again
    return Places(tuple(places[i] for i in range(len(inputs))), links)


def _names(given: Input) -> Iterator[str]:
    """Yields names of a recording's output, the shortest first."""
    own = [part for part in given.folder.split("/") if part]
    above = list(given.path.absolute().parts[1:-1])
    if own and above[-len(own) :] == own:
        del above[-len(own) :]
    for depth in range(len(above) + 1):
        folder = [*above[len(above) - depth :], *own]
        yield "/".join((*folder, given.stem))
        if not given.member:
            yield "/".join((*folder, given.path.name))
    for number in itertools.count():
        mark = _mark(f"{given.path.absolute()}:{given.member}:{number}")
        yield "/".join((*own, f"{given.stem}~{mark}"))


def _place(out: Path, name: str, given: Input, kind: Kind) -> Place:
    base = out.joinpath(*(_short(part) for part in name.split("/")))
    try:
        source = os.path.relpath(given.path.absolute(), base.parent.absolute())
    except ValueError:  # Another drive of Windows.
        source = str(given.path.absolute())
    source = Path(source).as_posix()
    return Place(
        name=name,
        table=base.with_name(f"{base.name}_{kind}.tsv"),
        plot=base.with_name(f"{base.name}.png") if kind == "events" else None,
        source=f"{source}:{given.member}" if given.member else source,
    )


def _short(part: str) -> str:
    """Cuts a name that leaves no room for a suffix, and marks it by its hash."""
    whole = os.fsencode(part)
    if len(whole) <= _LONGEST:
        return part
    return f"{os.fsdecode(whole[:_LONGEST])}~{_mark(part)}"


def _mark(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def _bids_place(out: Path, bids: BidsFile, link: str, kind: Kind) -> Place:
    # A table of windows is one of events in BIDS, which has no other for it.
    stem = bids.stem if kind == "events" else f"{bids.stem}Windows"
    return Place(
        name=bids.entities,
        table=out / Path(bids.path).parent / f"{stem}_events.tsv",
        plot=out / "figures" / f"{stem}.png" if kind == "events" else None,
        source=f"bids:{link}:{bids.path}",
        bids=True,
    )


def _is_free(place: Place) -> bool:
    """Checks that nothing lies there, or what was written for the same recording.

    Raises:
        InputError: If somebody else's file lies there.
    """
    files = [place.table, place.sidecar, *([place.plot] if place.plot else [])]
    there = [file for file in files if os.path.lexists(file)]
    if not there:
        return True
    sidecar = _read_sidecar(place.sidecar)
    known = sidecar.get("Files")
    if not isinstance(known, dict):
        raise InputError(
            f"{there[0]} is there already, and `eegkd predict` did not write it. Move "
            "it, or choose another --out."
        )
    if sidecar.get("Sources") != [place.source]:
        return False
    for file in (x for x in there if x != place.sidecar):
        if not file.is_file() or known.get(file.name) != hash_file(file):
            raise InputError(
                f"{file} was changed since `eegkd predict` wrote it. Move it, or "
                "choose another --out."
            )
    return True


def _read_sidecar(path: Path) -> dict[str, Any]:
    """Reads a sidecar of ours; {} if it is none."""
    try:
        found = parse_json(read_text(path))
        by = found["GeneratedBy"][0]["Name"]
    except (ValueError, LookupError, TypeError):
        return {}
    return found if by == PROGRAM else {}


def write_sidecar(place: Place, files: Sequence[Path], **facts: Any) -> None:
    """Writes the sidecar of a recording, after its other files.

    Args:
        place: Its place.
        files: Files that were written, the table among them.
        **facts: Further fields.
    """
    with place.table.open(encoding="utf-8") as table:
        columns = table.readline().rstrip("\n").split("\t")
    classes = {"Description": "Probability of this class"}
    record = {
        **{name: _COLUMNS.get(name, classes) for name in columns},
        "Sources": [place.source],
        "GeneratedBy": [{"Name": PROGRAM, "Version": versions()["eegkd"]}],
        "Files": {file.name: hash_file(file) for file in files},
        **facts,
    }
    write_atomic(place.sidecar, json.dumps(record, indent=1) + "\n")
