"""Models of one structure trained together, ahead of their turn.

A sweep leaves every member's folder as a training of its own would, so what comes after
(controls, evaluation, a resumed run) reads finished models and need not know of it.
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
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.fit import (
    Begun,
    FoldData,
    Job,
    begin,
    conclude_fit,
    is_done,
    loop_options,
    val_score,
)
from eegkd.pipeline.inference import collect
from eegkd.pipeline.probes import watch
from eegkd.train.sweep import Member, train_many
from eegkd.train.sweep_room import member_bytes, members_at_once
from eegkd.typing import Batch, Variables

Say = Callable[[str], None]
_RUNNERS = ("auto", "single")


def fit_many(
    program: Program,
    jobs: Sequence[Job],
    data: FoldData,
    config: RunConfig,
    *,
    num_steps: int,
    log: Callable[[Job, Mapping[str, Any]], None],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Trains models together, and leaves each in its folder as `fit` does.

    Args:
        program: Of all of them.
        jobs: What differs; those that are finished stay as they are.
        data: One fold.
        config: The run's.
        num_steps: Updates of every model.
        log: Receives a job and a row.
        progress: Receives the updates done, added up over members.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint of all members.
        InputError: As `fit` does.
    """
    start = time.monotonic()
    checkpoints = _folder(jobs)
    if not checkpoints.is_dir():
        # With a checkpoint of all, members that finished after it are trained again
        # for its sake: from its last step, that is, not at all.
        jobs = [job for job in jobs if not is_done(job)]
        checkpoints = _folder(jobs)
    begun: list[Begun] = []
    try:
        for job in jobs:
            begun.append(begin(program, job, data, config, num_steps=num_steps))
        members = [
            Member(f"{job.model} {job.folder.name}", *own)
            for job, own in zip(jobs, begun, strict=True)
        ]
        results = train_many(
            program.many.sweep,
            members,
            num_steps=num_steps,
            options=loop_options(data, config, checkpoints),
            evaluate=lambda variables: _scores(program, variables, data, jobs[0]),
            log=lambda i, row: log(jobs[i], row),
            progress=progress,
        )
    finally:
        for own in begun:
            own.loader.close()
    seconds = (time.monotonic() - start) / len(jobs)
    for job, own, (_, history) in zip(jobs, begun, results, strict=True):
        if not is_done(job):
            best = history.best.variables(own.frozen)
            conclude_fit(program, job, data, best, history, seconds)
    shutil.rmtree(checkpoints, ignore_errors=True)


def groups(
    trainings: Sequence[tuple[Program, Job]],
    data: FoldData,
    config: RunConfig,
    say: Say = lambda text: None,
) -> list[tuple[Program, list[Job]]]:
    """Divides trainings into sweeps, of equal size as far as that goes.

    Trainings that are best done alone, or are finished, are in none.

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
    found: dict[int, tuple[Program, list[Job]]] = {}
    for program, job in trainings:
        found.setdefault(id(program), (program, []))[1].append(job)
    sweeps = []
    for program, jobs in found.values():
        if all(is_done(job) for job in jobs):
            continue
        at_once = _at_once(program, jobs, data, config, say)
        if at_once > 1:
            parts = np.array_split(np.arange(len(jobs)), -(-len(jobs) // at_once))
            sweeps += [(program, [jobs[i] for i in part]) for part in parts]
    return [(program, jobs) for program, jobs in sweeps if _goes_together(jobs)]


def _goes_together(jobs: Sequence[Job]) -> bool:
    """Whether several are left, or one that began in company and must end so."""
    left = sum(not is_done(job) for job in jobs)
    return left > 1 or (left == 1 and _folder(jobs).is_dir())


def _shares_batches(config: RunConfig) -> str | None:
    """Names the option by which devices work on one model, if there is one."""
    train = config.train
    if train.runner not in _RUNNERS:
        return f"--train.runner {train.runner} shares its batches"
    if jax.process_count() > 1:
        return f"{jax.process_count()} processes share its batches"
    if train.model_axis > 1 or train.fully_sharded:
        return "--train.model_axis and --train.fully_sharded cut it"
    return None


def _at_once(
    program: Program, jobs: Sequence[Job], data: FoldData, config: RunConfig, say: Say
) -> int:
    """Decides how many of the jobs one program trains, and says why."""
    devices = program.many.sweep.devices
    how, num = config.train.sweep, len(jobs)
    if how == "threads":
        return 1
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is None or members_at_once(how, num, 1, devices) == 1:
        return members_at_once(how, num, 1, devices)
    own = begin(program, jobs[0], data, config, num_steps=1)
    try:
        batch = next(own.loader)
    finally:
        own.loader.close()
    one = member_bytes(
        program.many.make_step, own.state, own.frozen, own.upstream, batch
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
    """Scores all members in one pass over the validation windows, and watches them.

    Members have one program, and so the windows of the first to be watched on.
    """
    finished = program.many.finish(variables)
    names = program.system.inputs

    def run(batch: Batch) -> Any:
        return program.many.predict(finished, {name: batch[name] for name in names})

    prob = collect(run, program.system, data.store, data.fold.val, data.zscore)
    watched = program.many.watched
    found = watch(watched, variables, first.samples) if watched else {}
    return [
        val_score(data, prob[:, i]) | {name: float(x[i]) for name, x in found.items()}
        for i in range(prob.shape[1])
    ]


def _folder(jobs: Sequence[Job]) -> Path:
    """Names the checkpoints of these members and of no others."""
    common = os.path.commonpath([job.folder.parent for job in jobs])
    names = repr([os.path.relpath(job.folder, common) for job in jobs])
    return Path(common) / f"sweep-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
