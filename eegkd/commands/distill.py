"""`eegkd distill SYSTEM`: train teacher, student and controls, or resume a run."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegkd.commands.options import (
    open_data,
    parse,
    parse_run,
    read_run,
    refuse_variants,
    system_of,
    take_option,
)
from eegkd.commands.processes import join, launch
from eegkd.commands.verbs import introduce
from eegkd.config import PLACEMENT, override
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.host.process import tune_process
from eegkd.pipeline.run import run_distillation
from eegkd.systems import System
from eegkd.systems.entry import Entry, Variant, names
from eegkd.systems.signal import signal_of

SHORT = ("runner", "devices", "processes")


def main(args: Sequence[str]) -> None:
    """Runs `distill SYSTEM [options]` or `distill --resume RUN`.

    `--runner`, `--devices` and `--processes` are short for `--train.runner` and so on,
    and may be given anew when a run is resumed.
    """
    folder, rest = take_option(args, "resume")
    coordinator, rest = take_option(rest, "coordinator")
    process_id, rest = take_option(rest, "process_id")
    rest = [_in_long(arg) for arg in rest]
    entry, config = _ask(rest) if folder is None else _read(folder, rest)
    if config.train.processes > 1 and coordinator is None:
        launch(["distill", *args], config.train)
        return
    run(entry, config, coordinator, process_id)


def run(
    entry: Entry,
    config: Any,
    coordinator: str | None = None,
    process_id: str | None = None,
) -> None:
    """Trains and judges a system by its options; `quickstart` calls it too."""
    tune_process(quick_compile=config.train.quick_compile)
    join(config.train, coordinator, process_id)
    store, folds = open_data(config)
    notes = entry.notes(dataclasses.replace(config, signal=signal_of(store)))
    run_entry(entry, store, folds, config, notes)


def run_entry(
    entry: Entry,
    store: WindowStore,
    folds: Sequence[Fold],
    config: Any,
    notes: Sequence[str] = (),
) -> None:
    """Runs a system with those of its variants that are asked for, or registered."""
    wanted = dict.fromkeys((*config.rows, *entry.registered))
    chosen = {row: entry.variants[row] for row in wanted if row in entry.variants}
    run_distillation(
        entry.make_system,
        store,
        folds,
        config,
        variants=[
            (name, functools.partial(_make_variant, entry, variant))
            for name, variant in chosen.items()
        ],
        same_teacher=bool(chosen) and all(v.same_teacher for v in chosen.values()),
        registered=entry.registered,
        notes=(*notes, *(f"{name}: {v.sentence}" for name, v in chosen.items())),
    )


def _make_variant(entry: Entry, variant: Variant, config: Any) -> System:
    return entry.make_system(override(config, variant.changes))


def _in_long(arg: str) -> str:
    name = arg.partition("=")[0].removeprefix("--")
    return f"--train.{arg[2:]}" if arg.startswith("--") and name in SHORT else arg


def _ask(rest: list[str]) -> tuple[Entry, Any]:
    """Reads a system's name and options."""
    if rest and rest[0] in ("-h", "--help"):
        introduce("distill", "", "--resume RUN")
        rest = [names()[0], *rest[:1]]
    if not rest or rest[0].startswith("-"):
        rest = [found, *rest] if (found := system_of(rest)) else rest
    if not rest or rest[0].startswith("-"):
        raise InputError(
            "Name a system first, as in `eegkd distill distilclip_eeg --preset "
            f"small`: choose {', '.join(names())}. Or resume: --resume RUN."
        )
    return parse_run(rest[0], rest[1:], f"distill {rest[0]}")


def _read(folder: str, rest: list[str]) -> tuple[Entry, Any]:
    """Reads a run to go on with, whatever command began it.

    Raises:
        InputError: If options would change its numbers, the folder holds no run, or
            only the program that began it can resume it.
    """
    entry, config = read_run(Path(folder))
    refuse_variants(Path(folder), entry)
    changed = [arg for arg in rest if arg.startswith("-")]
    allowed = {f"--train.{name}" for name in PLACEMENT}
    if any(arg.partition("=")[0] not in allowed for arg in changed) or (
        rest and not changed
    ):
        raise InputError(
            "--resume takes no option but those of the machine "
            f"({', '.join(f'--{name}' for name in SHORT)}); got {' '.join(rest)}."
        )
    given = [arg.replace("--train.", "--", 1) for arg in rest]
    train = parse(type(config.train), given, "distill --resume", default=config.train)
    return entry, dataclasses.replace(config, train=train)
