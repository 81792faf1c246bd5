"""`eegkd evaluate RUN`: judge a finished run again from its saved predictions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from eegkd.commands.distill import run_entry
from eegkd.commands.options import parse, read_run, refuse_variants
from eegkd.config import override
from eegkd.data.windows.folds import make_folds
from eegkd.deploy.load import open_store
from eegkd.errors import InputError
from eegkd.host.process import tune_process
from eegkd.pipeline.folder import read_record
from eegkd.pipeline.schedule import missing
from eegkd.systems.entry import Entry
from eegkd.systems.signal import signal_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge a finished run again: results.json, summary.json and report.html anew.

    Attributes:
        run: The run folder.
    """

    run: tyro.conf.Positional[str]


def main(args: Sequence[str]) -> None:
    """Runs the verb."""
    folder = Path(parse(Evaluate, args, "evaluate").run)
    entry, config = read_run(folder)
    refuse_variants(folder, entry)
    record = read_record(folder)
    store = open_store(config)
    if store.fingerprint != record["store"]["fingerprint"]:
        raise InputError(
            f"{folder}: its predictions are of another window store than {store.path}. "
            "Put the run's own store back, or train anew into another --out."
        )
    config = dataclasses.replace(config, signal=signal_of(store))
    folds = make_folds(
        store, config.split, num_folds=config.num_folds, seed=config.seed
    )
    left = _left(folder, entry, config, len(folds))
    if left:
        raise InputError(
            f"{folder} is not finished: {len(left)} trainings are missing, the "
            f"first is {left[0]}. Go on with `eegkd distill --resume {folder}`."
        )
    tune_process()
    run_entry(entry, store, folds, config)


def _left(folder: Path, entry: Entry, config: Any, num_folds: int) -> list[Path]:
    """Lists the folders of unfinished trainings."""
    system = entry.make_system(config)
    systems = {"": system} | {
        name: entry.make_system(override(config, variant.changes))
        for name, variant in entry.variants.items()
        if name in config.rows
    }
    return missing(systems, config, num_folds, folder)
