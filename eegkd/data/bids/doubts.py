"""What a BIDS data set lacks or does not explain, in words: none of it is an error."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from eegkd.data.bids.events import LABEL_COLUMNS, Events
from eegkd.data.bids.labels import EVENTS, Labelling
from eegkd.data.bids.layout import DATATYPES, Dataset
from eegkd.data.bids.sidecars import find_table, read_metadata
from eegkd.data.bids.tables import read_table
from eegkd.data.folders.people import quoted


def tell_doubts(
    dataset: Dataset, labelling: Labelling, labels: Iterable[str]
) -> Iterator[str]:
    """Yields a sentence for each doubt.

    They are people without a row in participants.tsv, recordings of scans.tsv that are
    not here, labels that the `Levels` of their column do not name, and a data set
    without labels.
    """
    yield from _people_without_row(dataset)
    yield from _lost_recordings(dataset)
    if labelling.table == EVENTS:
        yield from _unknown_labels(dataset, labelling.column, labels)
    if not labelling.table:
        yield (
            f"No events.tsv fills {', '.join(LABEL_COLUMNS[:-1])} or "
            f"{LABEL_COLUMNS[-1]}, so nothing is labelled: annotations inside "
            "files are not read. Name another column with --data.label."
        )


def tell_untimed(dataset: Dataset, found: Mapping[Path, Events]) -> Iterator[str]:
    """Yields a sentence on events without an onset, which label nothing."""
    lines = [
        f"{path.relative_to(dataset.root).as_posix()}, line {line}"
        for path, events in found.items()
        for line, _ in events.untimed
    ]
    if lines:
        yield f"{len(lines)} events have a label and no onset (first: {lines[0]})."


def _people_without_row(dataset: Dataset) -> Iterator[str]:
    path = find_table(dataset, dataset.recordings[0][0], "participants")
    if path is None:
        return
    column = "participant_id"
    rows = read_table(path, needs=(column,)).rows
    known = {row.cells[column].removeprefix("sub-") for row in rows}
    people = {files[0].entities["sub"] for files in dataset.recordings}
    if lost := sorted(people - known):
        names = quoted((f"sub-{name}" for name in lost), form="{}")
        yield f"{path.name} has no row of {names}, who have recordings."


def _lost_recordings(dataset: Dataset) -> Iterator[str]:
    lost = []
    tables = {find_table(dataset, files[0], "scans") for files in dataset.recordings}
    for path in sorted(filter(None, tables)):
        for row in read_table(path, needs=("filename",)).rows:
            name = row.cells["filename"]
            if name.startswith(DATATYPES) and not (path.parent / name).exists():
                lost.append(name)
    if lost:
        yield (
            f"Not here, though scans.tsv names them: {quoted(lost, form='{}')}. Copy "
            "what is wanted of them, and prepare again into another --out."
        )


def _unknown_labels(
    dataset: Dataset, column: str, labels: Iterable[str]
) -> Iterator[str]:
    known: set[str] = set()
    for files in dataset.recordings:
        about = read_metadata(dataset, files[0], "events").get(column)
        levels = about.get("Levels") if isinstance(about, dict) else None
        known |= set(levels) if isinstance(levels, dict) else set()
    unknown = sorted(set(labels) - known)
    if known and unknown:
        yield (
            f"The Levels of {column} in events.json name {quoted(sorted(known))}, and "
            f"not {quoted(unknown)}."
        )
