"""`eegkd prepare`: a corpus, or a folder of files, cut into a window store."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from eegkd.commands.options import parse, with_root
from eegkd.data.config import DataConfig
from eegkd.data.windows.marks import describe_marks
from eegkd.data.windows.prepare import estimate, prepare
from eegkd.data.windows.store import WindowStore
from eegkd.host.sealed import format_bytes
from eegkd.host.terminal import Terminal


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
    console.print(f"Use it with --store {out}", soft_wrap=True)


def _summary(store: WindowStore) -> Table:
    manifest, counts = store.manifest, store.manifest["counts"]
    who = "subjects" if manifest["has_subjects"] else "subjects (none are named)"
    classes = ((f"windows: {name}", n) for name, n in counts["classes"].items())
    channels = manifest["channels"]
    rows = (
        (who, len(store.subjects.names) if manifest["has_subjects"] else "-"),
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
