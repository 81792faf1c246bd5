"""One wave of trainings: in one program, side by side in threads, or one by one."""

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from eegkd.pipeline.fit import Fitted, fit
from eegkd.pipeline.jobs import FoldState, Setting, cache_folder, make_jobs
from eegkd.pipeline.observe import Observer, moving
from eegkd.pipeline.schedule import SMALL_NET, Training, Wave
from eegkd.pipeline.threads import fit_threads
from eegkd.pipeline.vmapped import fit_many, groups
from eegkd.train.distributed import first_only


def execute(
    wave: Wave, setting: Setting, state: FoldState, observer: Observer, num_folds: int
) -> Iterator[tuple[Training, Fitted]]:
    """Trains what is not finished of a wave, and yields all of it in order.

    Finished variables of stages before the student are added to `state`.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, after every training has saved.
        InputError: If a training cannot go on.
    """
    if not wave:
        return
    config = setting.config
    jobs = make_jobs(wave, setting, state, observer)
    where = f"fold {wave[0].fold + 1}/{num_folds}"
    by_folder = {job.folder: training for training, _, job, _ in jobs}

    def log(job: Any, row: Mapping[str, Any]) -> None:
        training = by_folder[job.folder]
        name = training.model + (f"/part{training.part}" if training.part else "")
        seed = training.seed or 0
        observer.log({"fold": training.fold, "model": name, "seed": seed, **row})

    ahead: set[Any] = set()
    together = [(program, job) for _, program, job, _ in jobs]
    # Parts of a cross-fitted stage are trained on windows of their own.
    same_windows = len({id(data) for *_, data in jobs}) == 1
    if same_windows and wave[0].repeated:
        data = jobs[0][3]
        for program, mine in groups(together, data, config, observer.say):
            moved = moving(observer, f"{where} {len(mine)} models together")
            fit_many(program, mine, data, config, log=log, progress=moved)
            moved(len(mine) * program.num_steps)
            ahead.update(job.folder for job in mine)
        moved = moving(observer, f"{where} small models side by side")
        threaded = fit_threads(together, data, config, log=log, progress=moved)
        ahead.update(job.folder for job in threaded)
    for training, program, job, data in jobs:
        moved = moving(observer, f"{where} {job.model} {job.seed}")

        def log_own(row: Mapping[str, Any], job: Any = job) -> None:
            log(job, row)

        fitted = fit(program, job, data, config, log=log_own, progress=moved)
        if job.folder not in ahead:
            moved(program.num_steps)
        if not training.repeated:
            key = training.variant, training.stage, training.part
            state.variables[key] = fitted.variables
        yield training, fitted
    if wave[0].repeated and wave[0].row != SMALL_NET:
        place = cache_folder(wave[0], setting)
        first_only(lambda: shutil.rmtree(place, ignore_errors=True))
