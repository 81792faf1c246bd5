"""`eegkd export RUN`: a run's student as files that other programs load."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich.table import Table

from eegkd.commands.options import parse, read_run
from eegkd.deploy.card import Card
from eegkd.deploy.export import FILES, export_model
from eegkd.deploy.onnx_file import missing_packages
from eegkd.errors import InputError
from eegkd.host.process import tune_process
from eegkd.host.terminal import Terminal
from eegkd.pipeline.folder import read_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a finished run's student as StableHLO, ONNX and safetensors, with a card.

    Each file is read back and compared with the student on windows of the run, in
    batches of several sizes; what differs is not kept, and nothing else is either. The
    graphs take the signal alone. The folder is replaced as a whole.

    Attributes:
        run: The run folder.
        row: Row of the model (fold 0, seed 0): student, teacher, or a control.
        format: Formats to write; none: all that can be written here. onnx needs the
            extra `export`.
        out: The folder to write; empty: RUN/ROW.
        runs: Timed calls of one window in each runtime, with one thread and with all,
            after 50 to warm up; 0 times nothing.
    """

    run: tyro.conf.Positional[str]
    row: str = "student"
    format: tuple[Literal["stablehlo", "onnx", "safetensors"], ...] = ()
    out: str = ""
    runs: int = 500


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    options = parse(Export, args, "export")
    if options.runs < 0:
        raise InputError(f"--runs {options.runs}: it is 0 or more.")
    folder, console = Path(options.run), Terminal()
    entry, config = read_run(folder)
    formats: Sequence[str] = tuple(dict.fromkeys(options.format))
    missing = missing_packages()
    if not formats:
        formats = [name for name in FILES if name != "onnx" or not missing]
    if not options.format and missing:
        console.print(
            f"Without {FILES['onnx']}: {', '.join(missing)} missing; pip install -e "
            '".[export]" brings it.',
            soft_wrap=True,
        )
    tune_process()
    out = Path(options.out) if options.out else folder / options.row
    card = export_model(
        entry.make_system,
        entry.deployed(config),
        out,
        row=options.row,
        formats=formats,
        weights=_published(folder),
        runs=options.runs,
    )
    _show(card, console)
    console.print(f"Wrote {out}", soft_wrap=True)


def _published(folder: Path) -> dict[str, str]:
    """Returns the published weights that a run started from: model -> file name."""
    stages = read_record(folder).get("weights", {}).get("system", {})
    return {x["model"]: next(iter(x["files"])) for x in stages.values()}


def _show(card: Card, console: Terminal) -> None:
    parity = card.files[0].parity
    files = Table(
        title=f"{card.name}: {sum(card.parts.values()):,} parameters",
        caption=f"difference of a probability on {parity.windows} windows, in batches "
        f"of {', '.join(map(str, parity.batch_sizes))}",
    )
    files.add_column("file")
    same = "same decisions" if card.thresholds else "same class"
    for name in ("bytes", "difference", same):
        files.add_column(name, justify="right")
    for file in card.files:
        found = file.parity
        cells = (f"{found.max_difference:.1e}", f"{found.agreement:.1%}")
        files.add_row(file.name, f"{file.size:,}", *cells)
    console.print(files)
    if not card.latency:
        return
    table = Table(title="One window", caption=card.machine)
    for name in ("runtime", "threads", "p50 ms", "p95 ms"):
        table.add_column(name, justify="right")
    for x in card.latency:
        times = (f"{x.p50_ms:.3f}", f"{x.p95_ms:.3f}")
        table.add_row(x.runtime, str(x.threads), *times)
    console.print(table)
