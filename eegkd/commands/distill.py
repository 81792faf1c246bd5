"""`eegkd distill SYSTEM`: train teacher, student and controls, or resume a run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegkd.commands.options import (
    open_data,
    parse_run,
    read_run,
    refuse_variants,
    take_option,
)
from eegkd.errors import InputError
from eegkd.pipeline.distill import signal_of
from eegkd.pipeline.host import tune_process
from eegkd.pipeline.registry import SYSTEMS, Entry
from eegkd.pipeline.run import run_distillation


def main(args: Sequence[str]) -> None:
    """Runs `distill SYSTEM [options]` or `distill --resume RUN`."""
    folder, rest = take_option(args, "resume")
    if folder is not None:
        resume(folder, rest)
        return
    if not rest or rest[0] in ("-h", "--help"):
        rest = ["distilclip_eeg", *rest[:1]] if rest else rest
    if not rest or rest[0].startswith("-"):
        raise InputError(
            "Name a system first, as in `eegkd distill distilclip_eeg --preset "
            f"small`: choose {', '.join(SYSTEMS)}. Or resume: --resume RUN."
        )
    run(*parse_run(rest[0], rest[1:], f"distill {rest[0]}"))


def resume(folder: str, rest: Sequence[str]) -> None:
    """Goes on with a run, whatever command began it; all it needs is in the folder.

    Raises:
        InputError: If there are other options, the folder is no run's, or only the
            program that began it can go on.
    """
    if rest:
        raise InputError(f"--resume takes no other option; got {' '.join(rest)}.")
    entry, config = read_run(Path(folder))
    refuse_variants(Path(folder))
    run(entry, config)


def run(entry: Entry, config: Any) -> None:
    """Trains and judges a system as its options say."""
    tune_process(quick_compile=config.train.quick_compile)
    store, folds = open_data(config)
    notes = entry.notes(dataclasses.replace(config, signal=signal_of(store)))
    run_distillation(entry.make_system, store, folds, config, notes=notes)
