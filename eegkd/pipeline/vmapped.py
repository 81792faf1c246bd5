"""Models of one structure trained together, ahead of their turn.

A sweep leaves every member's folder as a separate training would, so later steps
(controls, evaluation, a resumed run) read finished models and need not know of it.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eegkd.config import RunConfig
from eegkd.errors import InputError
from eegkd.pipeline.compiled import Program, inputs_of
from eegkd.pipeline.finished import is_finished
from eegkd.pipeline.fit import Job, Start, finish, loop_options, start
from eegkd.pipeline.folds import FoldData, val_score
from eegkd.pipeline.inference import collect
from eegkd.pipeline.probes import probe_means
from eegkd.systems import get_stage
from eegkd.train.sweep import Member, train_many
from eegkd.train.sweep_room import member_bytes, members_at_once
from eegkd.typing import Batch, Variables

_RUNNERS = ("auto", "single")


def fit_many(
    program: Program,
    jobs: Sequence[Job],
    data: FoldData,
    config: RunConfig,
    *,
    log: Callable[[Job, Mapping[str, Any]], None],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Trains models together, and saves each as `fit` does.

    Args:
        program: Program that all share.
        jobs: Jobs; finished ones are not trained again.
        data: One fold.
        config: Options of the run.
        log: Receives a job and a row.
        progress: Receives the updates done, added up over members.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint of all members.
        InputError: As `fit` does.
    """
    began = time.monotonic()
    checkpoints = _folder(jobs)
    if not checkpoints.is_dir():
        # A checkpoint of all also resumes members that have finished since: from its
        # last step, that is, they are not trained again.
        jobs = [job for job in jobs if not is_finished(job.folder)]
        checkpoints = _folder(jobs)
    starts: list[Start] = []
    try:
        for job in jobs:
            starts.append(start(program, job, data, config))
        members = [
            Member(f"{job.model} {job.folder.name}", *own)
            for job, own in zip(jobs, starts, strict=True)
        ]
        results = train_many(
            program.many().sweep,
            members,
            num_steps=program.num_steps,
            options=loop_options(program, data, checkpoints),
            evaluate=lambda variables: _scores(program, variables, data, jobs[0]),
            log=lambda i, row: log(jobs[i], row),
            progress=progress,
        )
    finally:
        for own in starts:
            own.loader.close()
    seconds = (time.monotonic() - began) / len(jobs)
    for job, own, (_, history) in zip(jobs, starts, results, strict=True):
        if not is_finished(job.folder):
            best = history.best.variables(own.frozen)
            finish(program, job, data, best, history, seconds)
    shutil.rmtree(checkpoints, ignore_errors=True)


def groups(
    trainings: Sequence[tuple[Program, Job]],
    data: FoldData,
    config: RunConfig,
    say: Callable[[str], None] = lambda text: None,
) -> list[tuple[Program, list[Job]]]:
    """Divides trainings into sweeps of nearly equal size.

    Trainings that are finished, or best done alone, are in none.

    Raises:
        InputError: If `--train.sweep vmap` and the runner contradict each other.
    """
    if config.train.sweep == "sequential":
        return []
    if (reason := _shares_batches(config)) is not None:
        if config.train.sweep != "vmap":
            return []
        raise InputError(
            f"--train.sweep vmap trains every model whole on one device, and {reason}: "
            "use --train.sweep sequential, or drop the other option."
        )
    sweeps = []
    for program, jobs in _by_program(trainings):
        if all(is_finished(job.folder) for job in jobs):
            continue
        at_once = _at_once(program, jobs, data, config, say)
        if at_once > 1:
            parts = np.array_split(np.arange(len(jobs)), -(-len(jobs) // at_once))
            sweeps += [(program, [jobs[i] for i in part]) for part in parts]
    return [(program, jobs) for program, jobs in sweeps if _goes_together(jobs)]


def _by_program(
    trainings: Sequence[tuple[Program, Job]],
) -> list[tuple[Program, list[Job]]]:
    """Groups trainings that share a compiled program."""
    found: list[tuple[Program, list[Job]]] = []
    for program, job in trainings:
        for other, jobs in found:
            if other is program:
                jobs.append(job)
                break
        else:
            found.append((program, [job]))
    return found


def _goes_together(jobs: Sequence[Job]) -> bool:
    """True if two or more are unfinished, or one that shares a checkpoint."""
    left = sum(not is_finished(job.folder) for job in jobs)
    return left > 1 or (left == 1 and _folder(jobs).is_dir())


def _shares_batches(config: RunConfig) -> str | None:
    """Returns the option by which devices share one model, if one is set."""
    train = config.train
    if train.runner not in _RUNNERS:
        return f"--train.runner {train.runner} shares its batches"
    if jax.process_count() > 1:
        return f"{jax.process_count()} processes share its batches"
    if train.model_axis > 1 or train.fully_sharded:
        return "--train.model_axis and --train.fully_sharded cut it"
    return None


def _at_once(
    program: Program,
    jobs: Sequence[Job],
    data: FoldData,
    config: RunConfig,
    say: Callable[[str], None],
) -> int:
    """Returns how many of the jobs one program trains, and the reason."""
    devices = program.many().sweep.devices
    how, num = config.train.sweep, len(jobs)
    if how == "threads":
        return 1
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is None or members_at_once(how, num, 1, devices) == 1:
        return members_at_once(how, num, 1, devices)
    own = start(program, jobs[0], data, config)
    try:
        batch = next(own.loader)
    finally:
        own.loader.close()
    one = member_bytes(
        program.many().make_step, own.state, own.frozen, own.upstream, batch
    )
    at_once = members_at_once(how, num, one, devices)
    say(
        f"{jobs[0].model}: {num} models of {one / 2**20:.0f} MiB each, devices of "
        f"{limit / 2**20:.0f} MiB: up to {at_once} are trained together."
    )
    return at_once


def _scores(
    program: Program, variables: Variables, data: FoldData, first: Job
) -> list[dict[str, float]]:
    """Scores and probes all members in one pass over the validation windows.

    Members share a program, and so the probes' windows of the first.
    """
    many, stage = program.many(), get_stage(program.system, program.stage)
    finished, as_inputs = many.finish(variables), inputs_of(program.system, stage)

    def run(batch: Batch) -> Any:
        return many.predict(finished, as_inputs(batch))

    rows = data.fold.val
    prob = collect(run, program.system, stage, data.store, rows, data.zscore)
    found = probe_means(many.probed, variables, first.samples) if many.probed else {}
    return [
        val_score(data, prob[:, i]) | {name: float(x[i]) for name, x in found.items()}
        for i in range(prob.shape[1])
    ]


def _folder(jobs: Sequence[Job]) -> Path:
    """Returns the checkpoint folder of exactly these members."""
    common = os.path.commonpath([job.folder.parent for job in jobs])
    names = repr([os.path.relpath(job.folder, common) for job in jobs])
    return Path(common) / f"sweep-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
