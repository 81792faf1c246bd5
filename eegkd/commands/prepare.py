"""`eegkd prepare`: a corpus, or a folder of files, cut into a window store."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from eegkd.commands.options import parse, with_root
from eegkd.data.config import DataConfig
from eegkd.data.windows.labelled import classes_without_windows
from eegkd.data.windows.marks import describe_marks
from eegkd.data.windows.prepare import estimate, prepare
from eegkd.data.windows.store import WindowStore, check_trainable
from eegkd.errors import InputError
from eegkd.host.sealed import format_bytes
from eegkd.host.terminal import Terminal
from eegkd.host.text import plain

MOST_NAMES = 8
"""Subjects whose names are printed."""
MOST_CLASSES = 30
"""Classes whose windows are counted one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare:
    """Cut a corpus, or a folder of your own files, into a window store.

    Stopped or killed, the same command goes on where it was.

    Attributes:
        out: The store's folder, which must not hold anything else.
        data: Corpus and preprocessing.
    """

    out: str
    data: DataConfig = DataConfig()


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    options = parse(Prepare, args, "prepare")
    config, out, console = with_root(options.data), Path(options.out), Terminal()
    if not (out / "manifest.json").exists():
        expected = estimate(config)
        console.print(
            f"{expected.num_recordings} recordings; expected: "
            f"{max(1, expected.seconds):.0f} s, {format_bytes(expected.num_bytes)} of "
            "disk (twice that while it runs). Stop with Ctrl-C; the same command goes "
            "on."
        )
    store = prepare(config, out)
    console.print(_summary(store))
    for sentence in _words(store):
        console.print(sentence, soft_wrap=True)
    console.print(f"Use it with --store {out}", soft_wrap=True)


def _summary(store: WindowStore) -> Table:
    manifest, counts = store.manifest, store.manifest["counts"]
    who = "subjects" if manifest["has_subjects"] else "subjects (none are named)"
    found = list(counts["classes"].items())
    classes = [(f"windows: {plain(name)}", n) for name, n in found[:MOST_CLASSES]]
    if others := found[MOST_CLASSES:]:
        num = sum(n for _, n in others)
        classes.append((f"windows: {len(others)} more classes", num))
    channels = manifest["channels"]
    names = [plain(name, 20) for name in store.subjects.names]
    more = ", ..." if len(names) > MOST_NAMES else ""
    rows = (
        (
            who,
            f"{len(names)}: {', '.join(names[:MOST_NAMES])}{more}"
            if manifest["has_subjects"]
            else "-",
        ),
        ("recordings", len(manifest["recordings"])),
        ("windows", f"{len(store)} of {manifest['window_s']:g} s"),
        *classes,
        ("windows: unlabelled", counts["unlabelled"]),
        ("channels", f"{len(channels)}: {', '.join(channels)}"),
        ("rate", f"{manifest['rate']:g} Hz"),
        *describe_marks(manifest["recordings"]),
    )
    table = Table(title=f"{manifest['corpus']}: {store.path}", show_header=False)
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def _words(store: WindowStore) -> Iterator[str]:
    """Yields what the table does not say: doubts, files left aside, labels missing."""
    manifest = store.manifest
    yield from manifest.get("notes", ())
    yield from classes_without_windows(store)
    try:
        check_trainable(store)
    except InputError as error:
        yield str(error)
    if not manifest["has_subjects"]:
        yield (
            "Nobody is named, so folds go by recording, and recordings of one person "
            "may be trained and tested on."
        )
