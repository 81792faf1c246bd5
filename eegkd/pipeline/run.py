"""run_distillation: every stage, control and baseline on every fold, then a verdict."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eegkd.config import ROWS, RunConfig
from eegkd.data.windows.folds import Fold, splits_json
from eegkd.data.windows.store import WindowStore, check_trainable
from eegkd.errors import InputError
from eegkd.evaluate.rows import REGISTERED
from eegkd.host.atomic import sole_writer
from eegkd.host.paths import in_full
from eegkd.host.terminal import Terminal, as_terminal
from eegkd.pipeline import baselines
from eegkd.pipeline.class_groups import check_decisions, without_rows_in_place
from eegkd.pipeline.compiled import compile_programs, program_key
from eegkd.pipeline.estimate import describe, every_training, expect, share_left
from eegkd.pipeline.execute import execute
from eegkd.pipeline.fit import Fitted
from eegkd.pipeline.folder import (
    Costs,
    open_run,
    read_json,
    read_record,
    write_json,
)
from eegkd.pipeline.folds import FoldData, fold_data, rank
from eegkd.pipeline.given import judge_given
from eegkd.pipeline.jobs import FoldState, Setting
from eegkd.pipeline.judge import Judged, judge
from eegkd.pipeline.labelled import limit_labels
from eegkd.pipeline.norms import keep_norms
from eegkd.pipeline.observe import Observer, show
from eegkd.pipeline.schedule import (
    SMALL_NET,
    Training,
    Wave,
    left_out,
    repeats,
    schedule,
)
from eegkd.pipeline.teacher_choice import choose_teachers
from eegkd.pipeline.teacher_reuse import check_teachers, take_teachers, teacher_notes
from eegkd.systems import System
from eegkd.systems.channels import channel_notes, check_columns, student_columns
from eegkd.systems.loaded import system_weights
from eegkd.systems.measures import with_measures
from eegkd.systems.signal import signal_of
from eegkd.train.distributed import first_only, in_turn, is_first

MakeSystem = Callable[[Any], System]
Variant = tuple[str, MakeSystem]


def run_distillation(
    make_system: MakeSystem,
    store: WindowStore,
    folds: Sequence[Fold],
    config: Any,
    *,
    variants: Sequence[Variant] = (),
    same_teacher: bool = False,
    registered: Sequence[str] = REGISTERED,
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Trains and judges a system with its controls, and writes the run folder.

    Called again with the same options, it resumes where it stopped, to the same
    numbers.

    Args:
        make_system: `config -> System`; `config.signal` is filled from the store.
        store: Windows.
        folds: Folds of the store.
        config: A `RunConfig` that also holds the system's options.
        variants: More systems, each with its own teacher; a variant's student becomes
            the row of its name.
        same_teacher: True if the variants share the system's own stages before the
            student, trained once for all.
        registered: Rows that the student must all beat, trained whatever `config.rows`
            names; () registers no comparison.
        notes: Sentences the reader of the report must not miss.
        console: Console to write to; None makes one.

    Returns:
        The rows of results.json.

    Raises:
        InputError: On bad options or data, another run's folder, or one that another
            process is writing.
        Interrupted: On Ctrl-C or SIGTERM, after saving.
    """
    # The table needs 110 columns; a log file has 80.
    width = max(110, Terminal().width)
    console = as_terminal(console, width=width, quiet=not is_first())
    check_trainable(store)
    known = {*ROWS, *(name for name, _ in variants)}
    if unknown := sorted(set(config.rows) - known):
        raise InputError(f"--rows {' '.join(unknown)}: choose from {', '.join(ROWS)}.")
    if unknown := sorted(set(registered) - known):
        raise InputError(
            f"The rows {', '.join(unknown)} are registered for the verdict and cannot "
            f"be trained: a system's entry names some of {', '.join(sorted(known))}."
        )
    folder = Path(config.out).absolute()
    config = with_registered(config, folder, registered)
    config, moved = without_rows_in_place(config, store, folds)
    config = dataclasses.replace(config, signal=signal_of(store))
    systems = {"": make_system(config)}
    systems |= {name: make(config) for name, make in variants}
    check_columns(config, systems)
    for fold in folds:  # Refuses what it cannot give.
        limit_labels(store, fold, config.train.labelled_people)
    shared = {"same_teacher": same_teacher}
    programs = compile_programs(systems, store, folds, config, **shared)
    record = run_record(systems, store, folds, config, registered)
    if config.teacher_run:
        earlier = [stage.name for stage in systems[""].stages[:-1]]
        check_teachers(record, splits_json(store, folds), earlier)
    with sole_writer(folder) if is_first() else contextlib.nullcontext():
        first_only(lambda: open_run(folder, record))
        splits = splits_json(store, folds)
        first_only(lambda: write_json(folder / "splits.json", splits))
        kept, own = folder / "measures.npz", systems[""]
        store = in_turn(lambda: with_measures(own, store, config.signal, kept))
        teachers = in_turn(lambda: choose_teachers(systems, folds, config, folder))
        setting = Setting(systems, programs, teachers, config, folder, same_teacher)
        check_decisions(own, teachers[""].external_stages(own), store, config)
        said = (
            *(*notes, *channel_notes(config, store), *teacher_notes(config), *moved),
            *(f"{k} is not trained: {why}." for k, why in record["left_out"].items()),
        )
        return _train_and_judge(setting, store, folds, record, said, console)


def with_registered(config: Any, folder: Path, registered: Sequence[str]) -> Any:
    """Adds the registered rows to those that are trained.

    A run that was begun without them, by an older version, goes on without.
    """
    began = (folder / "config.json").is_file()
    if began and tuple(read_record(folder)["run"].get("rows", ())) == config.rows:
        return config
    missing = [row for row in registered if row not in config.rows]
    return dataclasses.replace(config, rows=(*config.rows, *missing))


def run_record(
    systems: Mapping[str, System],
    store: WindowStore,
    folds: Sequence[Fold],
    config: RunConfig,
    registered: Sequence[str] = REGISTERED,
) -> dict[str, Any]:
    """Returns the record of a run that config.json holds."""
    record = {
        "system": systems[""].name,
        "run": in_full(config),
        "store": {"path": str(store.path or ""), "fingerprint": store.fingerprint},
        "num_folds": len(folds),
        "variants": [name for name in systems if name],
        "registered": list(registered),
        "left_out": left_out(systems[""], config),
        "terms": {name or "system": _terms(system) for name, system in systems.items()},
    }
    weights = {
        name or "system": found
        for name, system in systems.items()
        if (found := system_weights(system))
    }
    return record | ({"weights": weights} if weights else {})


def _train_and_judge(
    setting: Setting,
    store: WindowStore,
    folds: Sequence[Fold],
    record: Mapping[str, Any],
    notes: Sequence[str],
    console: Console,
) -> list[dict[str, Any]]:
    """Runs the distillation; the caller holds the folder's lock."""
    config, folder = setting.config, setting.folder
    waves = schedule(
        setting.systems,
        config,
        len(folds),
        skipped={
            name: teacher.external_stages(setting.systems[name])
            for name, teacher in setting.teachers.items()
        },
        same_teacher=setting.same_teacher,
    )
    if config.teacher_run:
        earlier = [t for wave in waves for t in wave if not t.repeated]
        console.print(in_turn(lambda: take_teachers(folder, record, earlier)))
    unfinished = share_left(waves, setting, len(folds)) > 0
    seconds, disk = 0.0, 0
    if unfinished:
        for text in dict.fromkeys(t.text for t in setting.teachers.values()):
            console.print(text)
        console.print("Compiling, and timing a few updates of every model ...")
        seconds, disk = expect(waves, setting, store, folds)
        student = setting.systems[""].stages[-1].name
        steps = setting.programs["", student, ""].num_steps
        console.print(
            f"{len(folds)} folds, {config.num_seeds} seeds, {steps} updates a training;"
            f" expected: {describe(seconds, disk)}. Ctrl-C saves; the same command "
            "resumes."
        )
    began = time.monotonic()
    total = sum(
        setting.programs[program_key(training)].num_steps
        for training in every_training(waves, setting, len(folds))
    )
    judged = Judged()
    with show(console, folder / "metrics.jsonl", total) as observer:
        people = config.train.labelled_people
        for data, own in _by_fold(waves, store, folds, people):
            place = folder / f"fold{data.fold.index}"
            keep = functools.partial(keep_norms, place, data, student_columns(config))
            first_only(keep)
            _run_fold(own, setting, data, observer, judged, len(folds))
    spent = time.monotonic() - began
    if not unfinished and (folder / "summary.json").is_file():
        # Judged again: the cost of the training is still the one to report.
        before: Costs = read_json(folder / "summary.json", Costs)
        seconds, spent = before["expected_s"], before["spent_s"]
    rows: list[dict[str, Any]] = []

    def conclude() -> None:
        costs = {"expected_s": seconds, "spent_s": spent}
        noted = {**record, **costs}
        rows.extend(judge(judged, store, folds, config, noted, notes, console))
        if unfinished:
            console.print(f"Expected {describe(seconds, disk)}; took {spent:.0f} s.")
        console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)

    first_only(conclude)
    return rows


def _by_fold(
    waves: Sequence[Wave], store: WindowStore, folds: Sequence[Fold], num_people: int
) -> Iterable[tuple[FoldData, list[Wave]]]:
    for fold in folds:
        own = [wave for wave in waves if wave and wave[0].fold == fold.index]
        data = fold_data(store, fold)
        yield data._replace(store=limit_labels(store, fold, num_people)), own


def _run_fold(
    waves: Sequence[Wave],
    setting: Setting,
    data: FoldData,
    observer: Observer,
    judged: Judged,
    num_folds: int,
) -> None:
    """Runs the waves of one fold, and keeps the predictions of each training."""
    config, state = setting.config, FoldState(data, {})

    def run(wave: Wave) -> list[tuple[Training, Fitted]]:
        return list(execute(wave, setting, state, observer, num_folds))

    def keep(results: Sequence[tuple[Training, Fitted]]) -> None:
        for training, fitted in results:
            if fitted.val is not None and not training.part:
                program = setting.programs[program_key(training)]
                judged.keep(training.model, training.seed or 0, program, fitted)

    for wave in waves:
        results = run(wave)
        if wave[0].row == SMALL_NET:
            chosen = _best(results, data.store)
            more = repeats(data.fold.index, chosen[0][0].trial, config)
            results = [*chosen, *run(more)]
        keep(results)
    # Now that the stages are trained which a given one may start from or read.
    for model, program, fitted in judge_given(setting, state):
        judged.keep(model, 0, program, fitted)
    if "linear" in config.rows:
        columns = student_columns(config)
        judged.add("linear", 0, *baselines.linear(data, config.seed, columns))


def _best(
    results: Sequence[tuple[Training, Fitted]], store: WindowStore
) -> list[tuple[Training, Fitted]]:
    """Chooses the trial with the best validation score."""

    def value(result: tuple[Training, Fitted]) -> tuple[float, ...]:
        val = result[1].val
        return () if val is None else rank(val, store)

    return [max(results, key=value)]


def _terms(system: System) -> dict[str, dict[str, Any]]:
    """Returns the terms of each stage, which no checkpoint records."""
    return {
        stage.name: {
            term.name: "schedule" if callable(term.weight) else float(term.weight)
            for term in stage.terms
        }
        for stage in system.stages
    }
