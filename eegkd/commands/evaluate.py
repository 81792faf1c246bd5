"""`eegkd evaluate RUN`: judge a finished run again from its saved predictions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from eegkd.commands.options import parse, read_run, refuse_variants
from eegkd.data.windows.folds import make_folds
from eegkd.deploy.load import open_store
from eegkd.errors import InputError
from eegkd.host.process import tune_process
from eegkd.pipeline.baselines import TRIALS, trial_name
from eegkd.pipeline.folder import read_record
from eegkd.pipeline.run import run_distillation
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
    refuse_variants(folder)
    record = read_record(folder)
    store = open_store(config)
    if store.fingerprint != record["store"]["fingerprint"]:
        raise InputError(
            f"{folder}: its predictions are of another window store than {store.path}. "
            "Put the run's own store back, or train anew into another --out."
        )
    config = dataclasses.replace(config, signal=signal_of(store))
    stages = [stage.name for stage in entry.make_system(config).stages]
    missing = [
        place
        for fold in range(record["num_folds"])
        for place in unfinished(folder / f"fold{fold}", stages[:-1], config)
    ]
    if missing:
        raise InputError(
            f"{folder} is not finished: {len(missing)} trainings are missing, the "
            f"first is {missing[0].relative_to(folder)}. Go on with `eegkd distill "
            f"--resume {folder}`."
        )
    tune_process()
    folds = make_folds(
        store, config.split, num_folds=config.num_folds, seed=config.seed
    )
    run_distillation(entry.make_system, store, folds, config)


def unfinished(fold: Path, stages: Sequence[str], config: Any) -> list[Path]:
    """Lists the trainings of one fold that have not ended.

    Args:
        fold: The fold's folder.
        stages: Names of the stages before the student.
        config: Of the run.
    """
    seeds = range(config.num_seeds)
    trained = ("student", *(row for row in config.rows if row != "linear"))
    names = [fold / stage for stage in stages]
    names += [fold / r / f"seed{s}" for r in trained if r != "small_net" for s in seeds]
    if "small_net" in config.rows:
        names += [fold / "small_net" / trial_name(0, *trial) for trial in TRIALS]
        # Which trial the other seeds repeat is only known from the first one's scores.
        for pattern in (f"small_net/seed{seed}-*/done.json" for seed in seeds[1:]):
            found = next(fold.glob(pattern), None)
            names.append(found.parent if found else (fold / pattern).parent)
    return [place for place in names if not (place / "done.json").is_file()]
