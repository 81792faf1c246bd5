"""Which column of a BIDS data set labels, and which classes that gives."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from eegkd.data.bids.events import LABEL_COLUMNS, read_label
from eegkd.data.bids.layout import BidsFile, Dataset
from eegkd.data.bids.sidecars import find_table
from eegkd.data.bids.tables import Row, Table, read_table
from eegkd.errors import InputError

EVENTS, ENTITIES = "events", "entities"
_KEYS = {
    "participants": "participant_id",
    "sessions": "session_id",
    "scans": "filename",
}
"""Tables whose rows are people, sessions or recordings, and the column of these."""


class Labelling(NamedTuple):
    """The column that labels, and the kind of table that it is in.

    `table` is "events", "participants", "sessions", "scans", or "entities" for the
    words of file names; "" if nothing labels.
    """

    table: str
    column: str


def find_labelling(dataset: Dataset, events: Iterable[Table], wanted: str) -> Labelling:
    """Settles what labels.

    Args:
        dataset: The data set.
        events: Its tables of events.
        wanted: Column, or TABLE.COLUMN; "" takes the first of `LABEL_COLUMNS` that a
            table of events fills.

    Raises:
        InputError: If no table has the column, or several have.
    """
    events = tuple(events)
    if not wanted:
        filled = (
            name
            for name in LABEL_COLUMNS
            if any(read_label(row, name) for table in events for row in table.rows)
        )
        name = next(filled, "")
        return Labelling(EVENTS if name else "", name)
    columns = _columns(dataset, events)
    table, dot, column = wanted.partition(".")
    if dot and column in columns.get(table, ()):
        return Labelling(table, column)
    found = [name for name, names in columns.items() if wanted in names]
    if len(found) > 1:
        raise InputError(
            f"--data.label {wanted} is a column of {' and of '.join(found)}. Say "
            f"which: --data.label {found[0]}.{wanted}."
        )
    if not found:
        known = (
            f"{name}: {', '.join(cells)}" for name, cells in columns.items() if cells
        )
        raise InputError(
            f"--data.label {wanted}: no column of {dataset.root}. Choose of those of "
            f"{'; of '.join(known)}."
        )
    return Labelling(found[0], wanted)


def _columns(dataset: Dataset, events: Iterable[Table]) -> dict[str, tuple[str, ...]]:
    """Lists the columns that may label, by kind of table."""
    times = ("onset", "duration")
    found = {
        EVENTS: dict.fromkeys(c for t in events for c in t.columns if c not in times)
    }
    for name, key in _KEYS.items():
        paths = {find_table(dataset, files[0], name) for files in dataset.recordings}
        tables = [
            read_table(path, needs=(key,)) for path in sorted(filter(None, paths))
        ]
        found[name] = dict.fromkeys(c for t in tables for c in t.columns if c != key)
    words = (k for files in dataset.recordings for k in files[0].entities)
    found[ENTITIES] = dict.fromkeys(
        word for word in words if word not in ("sub", "split")
    )
    return {name: tuple(columns) for name, columns in found.items()}


def label_recordings(dataset: Dataset, labelling: Labelling) -> tuple[str, ...]:
    """Returns the label of every recording as a whole; "" where it is n/a.

    Raises:
        InputError: If a table lacks the row of a recording, or has two that differ.
    """
    if labelling.table == ENTITIES:
        words = (files[0].entities for files in dataset.recordings)
        return tuple(entities.get(labelling.column, "") for entities in words)
    read = functools.cache(_by_key)
    labels = []
    for files in dataset.recordings:
        path = find_table(dataset, files[0], labelling.table)
        key = _key(labelling.table, files[0], path)
        rows = read(path, labelling) if path else {}
        if key not in rows:
            raise InputError(
                f"{path or dataset.root}: no row of {key} in {labelling.table}.tsv, "
                f"which labels by {labelling.column}. Add it, with n/a if the label is "
                "not known."
            )
        labels.append(rows[key])
    return tuple(labels)


def _key(table: str, file: BidsFile, path: Path | None) -> str:
    """Returns the name of a recording's row."""
    if table == "scans":
        return file.path.relative_to(path.parent).as_posix() if path else file.path.name
    entity = "sub" if table == "participants" else "ses"
    if entity not in file.entities:
        raise InputError(
            f"{file.path}: sessions.tsv labels, and its name has no ses-. Choose "
            "recordings that have with --data.entities."
        )
    return f"{entity}-{file.entities[entity]}"


def _by_key(path: Path, labelling: Labelling) -> Mapping[str, str]:
    """Reads the labels of a table by what its rows are."""
    key = _KEYS[labelling.table]
    table = read_table(path, needs=(key, labelling.column))
    found: dict[str, Row] = {}
    for row in table.rows:
        name = row.cells[key]
        prefix = {"participants": "sub-", "sessions": "ses-"}.get(labelling.table, "")
        name = name if name.startswith(prefix) else prefix + name
        first = found.setdefault(name, row)
        labels = [read_label(r, labelling.column) for r in (first, row)]
        if labels[0] != labels[1]:
            raise InputError(
                f"{path}, lines {first.line} and {row.line}: {name} is {labels[0]!r} "
                f"and {labels[1]!r}. Correct or remove one of the rows."
            )
    return {name: read_label(row, labelling.column) for name, row in found.items()}
