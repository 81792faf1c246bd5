"""Small models trained side by side on a CPU, each by a thread of its own.

A small step is many short operations, which keep one core busy and leave the others
waiting. Independent trainings fill them. Every training has the numbers that it would
have alone, to the last bit: no thread reads what another writes.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax

from eegkd.config import RunConfig
from eegkd.errors import Interrupted
from eegkd.host.process import num_cores
from eegkd.host.signals import watch_signals
from eegkd.pipeline.compiled import Program
from eegkd.pipeline.finished import is_finished
from eegkd.pipeline.fit import Job, fit
from eegkd.pipeline.folds import FoldData
from eegkd.systems import get_stage
from eegkd.systems.batches import init_shapes, stage_example

MOST_THREADS = 8
LARGE = 2_000_000
"""Parameters from which a step's matrix products keep several cores busy."""
_POLL_S = 0.2


def threads_at_once(
    program: Program, upstream: Mapping[str, Any], config: RunConfig
) -> int:
    """Returns the number of trainings of a program at the same time; 1 is alone."""
    train = config.train
    alone = train.sweep not in ("auto", "threads") or program.runner.num_devices > 1
    if alone or jax.process_count() > 1 or jax.devices()[0].platform != "cpu":
        return 1
    stage = get_stage(program.system, program.stage)
    batch = stage_example(program.system, stage, config.signal)
    shapes = init_shapes(stage, batch, upstream)
    size = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes.params))
    if size >= LARGE and train.sweep == "auto":
        return 1
    return min(MOST_THREADS, num_cores())


def fit_threads(
    trainings: Sequence[tuple[Program, Job]],
    data: FoldData,
    config: RunConfig,
    *,
    log: Callable[[Job, Mapping[str, Any]], None],
    progress: Callable[[int], None],
) -> list[Job]:
    """Trains small models of a fold side by side; each ends in its folder.

    Args:
        trainings: Trainings; finished ones, and those best done alone, are skipped.
        data: The fold.
        config: Options of the run.
        log: Receives a job and a row; called by one thread at a time.
        progress: Receives the updates done, added up over models.

    Returns:
        Trainings that were done.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, when every training has saved.
        InputError: As the first training to fail raised it; the others have saved.
    """
    left = [
        (program, job)
        for program, job in trainings
        if not is_finished(job.folder)
        and threads_at_once(program, job.upstream, config) > 1
    ]
    if len(left) < 2:
        return []
    lock, stop = threading.Lock(), threading.Event()
    steps = [0] * len(left)

    def train_one(i: int) -> None:
        program, job = left[i]

        def write(row: Mapping[str, Any]) -> None:
            with lock:
                log(job, row)

        def moved(step: int) -> None:
            with lock:
                steps[i] = step
                progress(sum(steps))

        fit(program, job, data, config, log=write, progress=moved, stop=stop.is_set)

    workers = min(MOST_THREADS, num_cores(), len(left))
    with watch_signals() as signalled, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(train_one, i) for i in range(len(left))]
        _wait(futures, signalled, stop)
    errors = [f.exception() for f in futures if not f.cancelled()]
    broken = [e for e in errors if e is not None and not isinstance(e, Interrupted)]
    for error in broken or [e for e in errors if e is not None]:
        raise error
    if stop.is_set():
        raise Interrupted("Stopped between trainings. The same command resumes.")
    return [job for _, job in left]


def _wait(
    futures: Sequence[Future[None]],
    signalled: Callable[[], bool],
    stop: threading.Event,
) -> None:
    """Waits for all; after a signal or an error, asks running ones to save."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=_POLL_S)
        failed = any(not f.cancelled() and f.exception() for f in done)
        if (failed or signalled()) and not stop.is_set():
            stop.set()
            for future in pending:
                future.cancel()
