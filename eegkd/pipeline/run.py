"""run_distillation: every stage, control and baseline on every fold, then a verdict."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eegkd.config import ROWS, RunConfig, check_batch, num_steps
from eegkd.data.windows.folds import Fold, splits_json
from eegkd.data.windows.store import WindowStore, check_trainable
from eegkd.errors import InputError
from eegkd.host.atomic import sole_writer
from eegkd.pipeline import baselines
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.distill import Models, choose_teachers, make_models, train_rows
from eegkd.pipeline.estimate import describe, expect, share_left, trainings
from eegkd.pipeline.fit import Fitted, FoldData, Job, fit, fold_data
from eegkd.pipeline.folder import open_log, open_run, read_json, write_json
from eegkd.pipeline.judge import Judged, judge
from eegkd.pipeline.teacher_outputs import Watch
from eegkd.pipeline.teacher_reuse import check_teachers, take_teachers, teacher_notes
from eegkd.pipeline.threads import fit_beside
from eegkd.pipeline.vmapped import fit_many, groups
from eegkd.systems import System
from eegkd.systems.channels import channel_notes, check_columns, student_columns
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
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Trains and judges a system with its controls, and writes the run folder.

    Everything that is finished is kept: called again with the same options, it goes on
    where it was stopped, to the same numbers.

    Args:
        make_system: `config -> System`; `config.signal` is filled from the store.
        store: Windows.
        folds: Of the store.
        config: A `RunConfig` that also holds the system's options.
        variants: More systems, each with its own teacher; a variant's student becomes
            the row of its name.
        same_teacher: Whether the variants' stages before the student are the system's
            own, and trained once for all.
        notes: Sentences the reader of the report must not miss.
        console: Where to write; None makes one.

    Returns:
        The rows of results.json.

    Raises:
        InputError: On bad options or data, a run folder of others, or one that another
            process is at work in.
        Interrupted: On Ctrl-C or SIGTERM, after saving.
    """
    # The table needs 110 columns; a log file has 80.
    width = max(110, Console().width)
    console = console or Console(width=width, quiet=not is_first())
    check_trainable(store)
    check_batch(config.train, folds)
    unknown = sorted(set(config.rows) - set(ROWS))
    if unknown:
        raise InputError(f"--rows {' '.join(unknown)}: choose from {', '.join(ROWS)}.")
    folder = Path(config.out).absolute()
    config = dataclasses.replace(config, signal=signal_of(store))
    systems = [("", make_system(config))]
    systems += [(name, make(config)) for name, make in variants]
    check_columns(config, dict(systems))
    notes = (*notes, *channel_notes(config, store), *teacher_notes(config))
    record = {
        "system": systems[0][1].name,
        "run": config,
        "store": {"path": str(store.path or ""), "fingerprint": store.fingerprint},
        "num_folds": len(folds),
        "variants": [name for name, _ in variants],
        "terms": {name or "system": _terms(system) for name, system in systems},
    }
    if config.teacher_run:
        earlier = [stage.name for stage in systems[0][1].stages[:-1]]
        check_teachers(record, splits_json(store, folds), earlier)
    with sole_writer(folder) if is_first() else contextlib.nullcontext():
        first_only(lambda: open_run(folder, record))
        return _run(
            dict(systems), store, folds, config, record, notes, console, same_teacher
        )


def _run(
    systems: Mapping[str, System],
    store: WindowStore,
    folds: Sequence[Fold],
    config: Any,
    record: Mapping[str, Any],
    notes: Sequence[str],
    console: Console,
    same_teacher: bool,
) -> list[dict[str, Any]]:
    """Does what `run_distillation` says, in a folder that is this process's own."""
    folder = Path(config.out).absolute()
    splits = splits_json(store, folds)
    first_only(lambda: write_json(folder / "splits.json", splits))
    steps = num_steps(config.train, folds)
    teacher_steps = num_steps(config.train, folds, teacher=True)
    models = {
        name: make_models(system, config, steps, teacher_steps)
        for name, system in systems.items()
    }
    if same_teacher:
        stages = models[""].stages
        for name in list(models)[1:]:
            models[name] = models[name]._replace(stages=stages, shared=True)
    models = in_turn(lambda: choose_teachers(models, store, folds, config, folder))
    if config.teacher_run:
        stages = [program.stage for program in models[""].stages]
        console.print(in_turn(lambda: take_teachers(folder, record, stages)))
    nets = {}
    if "small_net" in config.rows:
        columns = student_columns(config)
        nets = baselines.small_net_programs(config.signal, config, steps, columns)
    left = share_left(models, nets, folds, config, folder)
    expected = (0.0, 0)
    if left:
        for text in dict.fromkeys(group.teacher.text for group in models.values()):
            console.print(text)
        console.print("Compiling, and timing a few updates of every model ...")
        expected = expect(models, nets, store, folds, config, left)
        console.print(
            f"{len(folds)} folds, {config.num_seeds} seeds, {steps} updates a training;"
            f" expected: {describe(*expected)}. Ctrl-C saves; the same command resumes."
        )
    start = time.monotonic()
    runs = Judged()
    _train_all(models, nets, store, folds, config, folder, runs, console)
    spent = time.monotonic() - start
    if not left and (folder / "summary.json").is_file():
        # Judged again: what the training took is still the news.
        before = read_json(folder / "summary.json")
        expected, spent = (before["expected_s"], expected[1]), before["spent_s"]
    rows: list[dict[str, Any]] = []

    def conclude() -> None:
        costs = {"expected_s": expected[0], "spent_s": spent}
        noted = {**record, **costs}
        rows.extend(judge(runs, store, folds, config, noted, notes, console))
        if left:
            console.print(f"Expected {describe(*expected)}; took {spent:.0f} s.")
        console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)

    first_only(conclude)
    return rows


def _train_all(
    models: Mapping[str, Models],
    nets: dict[float, Program],
    store: WindowStore,
    folds: Sequence[Fold],
    config: RunConfig,
    folder: Path,
    runs: Judged,
    console: Console,
) -> None:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    jobs = trainings(models, nets, config)
    total = len(folds) * sum(n * program.num_steps for program, n in jobs)
    path = folder / "metrics.jsonl"
    log_file = open_log(path) if is_first() else contextlib.nullcontext(_no_log)
    with progress, log_file as metrics:
        bar = progress.add_task("starting", total=total)
        watch = Watch(lambda text: progress.console.print(text), _rows_bar(progress))

        early: set[Path] = set()

        def show(data: FoldData, text: str) -> Callable[[int], None]:
            before = progress.tasks[0].completed
            text = f"fold {data.fold.index + 1}/{len(folds)} {text}"
            progress.update(bar, description=text)
            return lambda done: progress.update(bar, completed=before + done)

        def log(data: FoldData, job: Job, row: Mapping[str, Any]) -> None:
            fold = data.fold.index
            first = job.folder.relative_to(folder / f"fold{fold}").parts[0]
            model = _row_name(first if first in models else "", job.model)
            metrics({"fold": fold, "model": model, "seed": job.seed, **row})

        def ahead(wanted: Sequence[tuple[Program, Job]], data: FoldData) -> None:
            for program, jobs in groups(wanted, data, config, watch.say):
                moved = show(data, f"{len(jobs)} models together")
                fit_many(
                    program,
                    jobs,
                    data,
                    config,
                    num_steps=program.num_steps,
                    log=functools.partial(log, data),
                    progress=moved,
                )
                moved(len(jobs) * program.num_steps)
                early.update(job.folder for job in jobs)
            moved = show(data, "small models side by side")
            log_to = functools.partial(log, data)
            beside = fit_beside(wanted, data, config, log=log_to, progress=moved)
            early.update(job.folder for job in beside)

        def run(program: Program, job: Job, data: FoldData) -> Fitted:
            moved = show(data, f"{job.model} {job.seed}")
            fitted = fit(
                program,
                job,
                data,
                config,
                num_steps=program.num_steps,
                log=functools.partial(log, data, job),
                progress=moved,
            )
            moved(0 if job.folder in early else program.num_steps)
            early.add(job.folder)  # A shared teacher comes again.
            return fitted

        for fold in folds:
            data = fold_data(store, fold)
            place = folder / f"fold{fold.index}"
            for name, group in models.items():
                rows = config.rows if not name else ()
                for model, seed, program, fitted in train_rows(
                    group, data, config, place / name, run, rows, watch, ahead
                ):
                    runs.keep(_row_name(name, model), seed, program, fitted)
            if nets:
                for model, seed, program, fitted in baselines.train_small_net(
                    nets, data, config, place, run, ahead
                ):
                    runs.keep(model, seed, program, fitted)
            if "linear" in config.rows:
                columns = student_columns(config)
                runs.add("linear", 0, *baselines.linear(data, config.seed, columns))


def _rows_bar(progress: Progress) -> Callable[[str, int], Any]:
    """Shows the filling of a cache as one more bar while it lasts."""

    @contextlib.contextmanager
    def bar(what: str, rows: int) -> Iterator[Callable[[int], None]]:
        task = progress.add_task(what, total=rows)
        try:
            yield lambda done: progress.update(task, completed=done)
        finally:
            progress.remove_task(task)

    return bar


def _terms(system: System) -> dict[str, dict[str, Any]]:
    """Lists what each stage is trained with: no checkpoint says which loss it is of."""
    return {
        stage.name: {
            term.name: "schedule" if callable(term.weight) else float(term.weight)
            for term in stage.terms
        }
        for stage in system.stages
    }


def _no_log(row: Mapping[str, Any]) -> None:
    """Is the log of all processes but the first, which has the same rows."""
    del row


def _row_name(variant: str, model: str) -> str:
    if not variant:
        return model
    return variant if model == "student" else f"{variant}_{model}"
