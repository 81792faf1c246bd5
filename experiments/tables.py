"""One program for every experiment: a system, and a table of its variants."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eegkd.commands.options import open_data, parse_run, take_option
from eegkd.config import override
from eegkd.data import DataConfig
from eegkd.errors import InputError, Interrupted
from eegkd.host.process import tune_process
from eegkd.host.signals import end_unread
from eegkd.pipeline.run import MakeSystem, run_distillation
from eegkd.systems import System
from eegkd.systems.entry import find


class Experiment(NamedTuple):
    """A system and its variants.

    Attributes:
        about: A docstring, which its help shows before it lists the system's options.
        system: Name of the system.
        variants: By row.
        tables: Rows by the name of a table.
        options: Options by corpus; a user's own come after.
        table_options: Options by table.
        default_table: Default table by corpus; none is no variant.
        notes: On a corpus, for the report's reader.
        table_notes: On a table.
        programs: Tables that are several runs: by name, `config -> None`.
        same_teacher: The tables whose variants differ in the student alone: one teacher
            is trained for all.
    """

    about: str | None
    system: str
    variants: Mapping[str, MakeSystem]
    tables: Mapping[str, tuple[str, ...]]
    options: Mapping[str, str] = {}
    table_options: Mapping[str, str] = {}
    default_table: Mapping[str, str] = {}
    notes: Mapping[str, str] = {}
    table_notes: Mapping[str, str] = {}
    programs: Mapping[str, Callable[[Any], None]] = {}
    same_teacher: tuple[str, ...] = ()


def vary(make_system: MakeSystem, changes: Mapping[str, Any], config: Any) -> System:
    """Makes the system of other options, by their dotted names."""
    return make_system(override(config, changes))


def run_table(experiment: Experiment, argv: Sequence[str]) -> int:
    """Runs the experiment; returns the exit code."""
    try:
        with end_unread():
            _run(experiment, argv)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        return 130
    return 0


def _run(experiment: Experiment, argv: Sequence[str]) -> None:
    name = experiment.system
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(f"{experiment.about}\n")
    table, rest = take_option(argv, "table")
    corpus, _ = take_option(rest, "data.corpus")
    given = (
        experiment.options.get(corpus or DataConfig().corpus, ""),
        experiment.table_options.get(table or "", ""),
    )
    rest = [*" ".join(given).split(), *rest]
    _, config = parse_run(name, rest, f"distill {name}")
    corpus = config.data.corpus
    table = table or experiment.default_table.get(corpus, "none")
    known = (*experiment.tables, *experiment.programs)
    if table not in known:
        raise InputError(f"--table {table!r}: choose {', '.join(known)}.")
    tune_process(quick_compile=config.train.quick_compile)
    if table in experiment.programs:
        experiment.programs[table](config)
        return
    store, folds = open_data(config)
    variants = [(row, experiment.variants[row]) for row in experiment.tables[table]]
    asked = (experiment.notes, corpus), (experiment.table_notes, table)
    entry = find(name)
    run_distillation(
        entry.make_system,
        store,
        folds,
        config,
        variants=variants,
        same_teacher=table in experiment.same_teacher,
        registered=entry.registered,
        notes=[notes[key] for notes, key in asked if key in notes],
    )
