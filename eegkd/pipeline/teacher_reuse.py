"""Teachers trained by another run: one training for the students of many runs."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.config import PLACEMENT, RunConfig
from eegkd.errors import InputError, output_errors
from eegkd.host.atomic import open_atomic
from eegkd.host.paths import in_full
from eegkd.pipeline.finished import DONE, RESULTS, read_done
from eegkd.pipeline.folder import (
    describe_difference,
    from_json,
    read_json,
    read_record,
    to_json,
    write_json,
)
from eegkd.pipeline.schedule import Training

# Options that no stage before the student reads, or that the splits and the store's
# fingerprint cover.
_NOT_COMPARED = ("out", "store", "data", "signal", "student_channels", "split",
                 "num_folds", "num_seeds", "rows", "cache", "events",
                 "teacher_run")  # fmt: skip
_NOT_TRAINING = (*PLACEMENT, "epochs", "sweep", "teacher", "quick_compile",
                 "labelled_share")  # fmt: skip


def check_teachers(
    record: Mapping[str, Any], splits: Any, stages: Sequence[str]
) -> None:
    """Checks that the other run's teachers fit this run.

    Called before this run's folder is made: a refused command leaves nothing behind.

    Args:
        record: Record of this run; the other run is its `teacher_run`.
        splits: Subjects of each fold, as in splits.json.
        stages: Names of the stages before the student.

    Raises:
        InputError: If the other run's stages were trained on other windows, in other
            folds or in another way, or it is this run's own folder.
    """
    config = record["run"]
    source = Path(config.teacher_run).absolute()
    if source == Path(config.out).absolute():
        raise InputError(f"--teacher_run {source} is this run's own folder: leave it.")
    old = read_record(source)
    if old["system"] != record["system"]:
        raise InputError(
            f"--teacher_run {source} is a run of {old['system']}, this one is of "
            f"{record['system']}: name a run of the same system."
        )
    if old["store"].get("fingerprint") != record["store"]["fingerprint"]:
        raise InputError(
            f"--teacher_run {source}: its teachers were trained on other windows (its "
            f"store is {old['store'].get('path') or 'in memory'}). Give both runs one "
            "--store, or train a teacher here."
        )
    if read_json(source / "splits.json") != to_json(splits):
        raise InputError(
            f"--teacher_run {source} has other folds: subjects that are tested here "
            "may have trained its teachers. Use its --split, --num_folds and --seed."
        )
    earlier = from_json(type(config), old["run"], source / "config.json")
    was, now = recipe(in_full(earlier)), recipe(in_full(config))
    for key in now:
        if was[key] != now[key]:
            raise InputError(
                f"--teacher_run {source} trained its teachers with another `{key}`: "
                f"{describe_difference(was[key], now[key])} Ask for the same, or train "
                "a teacher here."
            )
    for stage in stages:
        files = [
            r.get("weights", {}).get("system", {}).get(stage) for r in (old, record)
        ]
        if files[0] and files[0] != files[1]:
            raise InputError(
                f"--teacher_run {source} began its stage {stage} with the weights "
                f"{files[0]}; here they are {files[1]}. Use its files, or train a "
                "teacher here."
            )
        terms = [r.get("terms", {}).get("system", {}).get(stage) for r in (old, record)]
        if terms[0] != terms[1]:
            raise InputError(
                f"--teacher_run {source} trained the stage {stage} with the losses "
                f"{terms[0]}; here they are {terms[1]}. Train a teacher here."
            )


def take_teachers(
    folder: Path, record: Mapping[str, Any], trainings: Sequence[Training]
) -> str:
    """Copies the finished stages before the student of the run `teacher_run`.

    Stages that this run has finished are not replaced. Copied files carry their hashes
    and are checked when they are read.

    Args:
        folder: Folder of this run.
        record: Record of this run, checked by `check_teachers`.
        trainings: Trainings of the stages before the student.

    Returns:
        Summary of the copies, in one line. Stages that the other run has not finished
        are trained here.

    Raises:
        InputError: If one of their files is missing.
    """
    source = Path(record["run"].teacher_run).absolute()
    missing = []
    for training in trainings:
        if training.done(folder):
            continue
        if training.done(source):
            _copy(source / training.place, folder / training.place)
        else:
            missing.append(str(training.place))
    if missing:
        lack = ", ".join(missing)
        return f"Teachers are those of {source}, but for {lack}: trained here."
    return f"Teachers are those of {source}."


def teacher_notes(config: RunConfig) -> tuple[str, ...]:
    """Formats the origin of reused teachers for the report."""
    if not config.teacher_run:
        return ()
    source = config.teacher_run
    return (f"Teachers are those of the run {source}, where their training is told.",)


def recipe(config: RunConfig) -> dict[str, Any]:
    """Returns the options that decide how stages before the student are trained.

    Windows and folds are left out; the number of epochs and the rate are those of
    these stages, whichever option gave them.
    """
    run = to_json(config)
    train, optim = run["train"], run["optim"]
    epochs, rate = train["epochs"], optim["learning_rate"]
    # Whose labels a student may use decides who can be held out from its teacher.
    own = {*_NOT_TRAINING, *(() if train["held_out"] else ("labelled_people",))}
    unread = {*_NOT_COMPARED, *type(config).student_options}
    return {
        **{key: value for key, value in run.items() if key not in unread},
        "train": {
            **{key: value for key, value in train.items() if key not in own},
            "teacher_epochs": train["teacher_epochs"] or epochs,
        },
        "optim": {
            **{key: value for key, value in optim.items() if key != "learning_rate"},
            "teacher_learning_rate": optim["teacher_learning_rate"] or rate,
        },
    }


def _copy(source: Path, target: Path) -> None:
    done = read_done(source)
    for name in done.get("files") or RESULTS:
        if not (source / name).is_file():
            raise InputError(
                f"{source / name} is gone: put it back, or leave --teacher_run."
            )
        with (
            output_errors(target),
            (source / name).open("rb") as old,
            open_atomic(target / name) as new,
        ):
            shutil.copyfileobj(old, new)
    # Last: it marks the stage as finished.
    write_json(target / DONE, {**done, "taken_from": str(source)})
