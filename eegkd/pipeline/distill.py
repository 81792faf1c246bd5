"""Stages in order, then the student, then its controls, on every fold."""

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eegkd.cache.read import TeacherTensor
from eegkd.config import RunConfig
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.controls import MOVES, OUTPUT_CONTROLS, SYSTEM_CONTROLS
from eegkd.pipeline.compiled import Program, make_program, term_weights
from eegkd.pipeline.fit import Ahead, Fitted, FoldData, Job, one_by_one
from eegkd.pipeline.folder import read_json, write_json
from eegkd.pipeline.inference import prepare_fn
from eegkd.pipeline.probes import Samples, take_samples
from eegkd.pipeline.teacher_choice import Teacher, choose_teacher, given_stages
from eegkd.pipeline.teacher_outputs import QUIET, Outputs, Watch, teacher_outputs
from eegkd.systems import System
from eegkd.systems.signal import signal_of
from eegkd.train.distributed import first_only, in_turn, is_first
from eegkd.typing import Variables

STUDENT_ROWS = {"student", *SYSTEM_CONTROLS, *OUTPUT_CONTROLS}


class Models(NamedTuple):
    """The programs of a system and of its controls.

    Attributes:
        stages: One for every stage before the student, in order.
        student: The student's; controls that differ in weights alone share it.
        no_teacher: The student's without earlier stages, if that row is wanted.
        teacher: Where the student gets the outputs of earlier stages.
        shared: Whether the stages are the first system's, trained with it.
    """

    stages: tuple[Program, ...]
    student: Program
    no_teacher: Program | None
    teacher: Teacher = Teacher()
    shared: bool = False


def make_models(
    system: System, config: RunConfig, steps: int, teacher_steps: int
) -> Models:
    """Builds every program that the wanted rows need.

    Args:
        system: Of the student.
        config: The run's.
        steps: Updates of the student.
        teacher_steps: Updates of every stage before it.
    """
    alone = None
    if "no_teacher" in config.rows:
        system_alone = SYSTEM_CONTROLS["no_teacher"](system)
        alone = make_program(system_alone, system.stages[-1].name, config, steps)
    *earlier, last = system.stages
    stages = tuple(make_program(system, s.name, config, teacher_steps) for s in earlier)
    return Models(stages, make_program(system, last.name, config, steps), alone)


def choose_teachers(
    models: Mapping[str, Models],
    store: WindowStore,
    folds: Sequence[Fold],
    config: RunConfig,
    folder: Path,
) -> dict[str, Models]:
    """Decides where each system's student gets its teacher's outputs.

    The choice is kept in the run folder: a run that goes on does not choose again, on
    a disk that has filled since. Stages whose outputs are given are not trained.

    Raises:
        InputError: If options contradict each other, or a cache is too large.
    """
    file = folder / "teacher.json"
    before = read_json(file) if file.is_file() else {}
    num = max(len(fold.train) for fold in folds)
    found = {}
    for name, group in models.items():
        system = group.student.system
        rows = () if name else config.rows
        signal, chosen = signal_of(store), before.get(name or "system")
        teacher = choose_teacher(system, store, num, config, signal, rows, chosen)
        given = given_stages(system, teacher)
        stages = tuple(p for p in group.stages if p.stage not in given)
        found[name] = group._replace(teacher=teacher, stages=stages)
    modes = {name or "system": group.teacher.mode for name, group in found.items()}
    if is_first():
        write_json(file, modes)
    return found


def train_rows(
    models: Models,
    data: FoldData,
    config: RunConfig,
    folder: Path,
    run: Callable[[Program, Job, FoldData], Fitted],
    rows: Sequence[str],
    watch: Watch = QUIET,
    ahead: Ahead = one_by_one,
) -> Iterator[tuple[str, int, Program, Fitted]]:
    """Trains the stages, the student and its controls on one fold.

    Yields:
        The model's name, its seed, its program and the finished training.
    """
    system, student = models.student.system, models.student
    upstream: dict[str, Variables] = {}
    held_out = hold_out(data, config)
    told, extras = None, {}
    if held_out is not None:
        extras = {"held_out": held_out.astype(np.float32)}
        told = np.where(_like(held_out, data.store.labels), -1, data.store.labels)
    for program in models.stages:
        where = folder.parent if models.shared else folder
        job = Job(
            program.stage,
            0,
            where / program.stage,
            upstream=dict(upstream),
            labels=told,
        )
        fitted = run(program, job, data)
        upstream[program.stage] = fitted.variables
        if not models.shared:
            yield program.stage, 0, program, fitted
    place = folder / "cache"
    jobs = [
        (seed, name, folder / name / f"seed{seed}")
        for seed in range(config.num_seeds)
        for name in ("student", *rows)
        if name in STUDENT_ROWS
    ]
    cache: Outputs | None = None
    samples: Samples = {}
    # What is finished is read again, and needs no teacher.
    if any(not (where / "done.json").is_file() for _, _, where in jobs):
        fill = functools.partial(
            teacher_outputs,
            models.teacher,
            system,
            upstream,
            data.store,
            data.fold.train,
            config,
            place,
            zscore=data.zscore,
            watch=watch,
        )
        cache = in_turn(fill) if models.teacher.mode == "cached" else fill()
        samples = take_samples(
            system,
            upstream,
            data.store,
            data.fold,
            zscore=data.zscore,
            prepare=prepare_fn(system),
        )
    labels = data.store.student_labels
    trainings: list[tuple[Program, Job]] = []
    for seed, name, where in jobs:
        job = Job(
            name,
            seed,
            where,
            upstream=upstream,
            cache=cache,
            labels=labels,
            samples=samples,
            extras=extras,
        )
        program = student
        if name == "no_teacher" and models.no_teacher is not None:
            program = models.no_teacher
            job = job._replace(upstream={}, cache=None)
        elif name == "alpha_0":
            weights = term_weights(SYSTEM_CONTROLS[name](system), student.stage)
            job = job._replace(weights=weights)
        elif name in OUTPUT_CONTROLS and cache is not None:
            job = job._replace(cache=_moved(name, cache, data, labels, seed))
        trainings.append((program, job))
    ahead(trainings, data)
    for program, job in trainings:
        yield job.model, job.seed, program, run(program, job, data)
    first_only(lambda: shutil.rmtree(place, ignore_errors=True))


def hold_out(data: FoldData, config: RunConfig) -> np.ndarray | None:
    """Chooses whom stages before the student are not trained on, bool a store row.

    Returns:
        None where nobody is to be held out.

    Raises:
        InputError: If that would leave nobody on either side.
    """
    share, store = config.train.held_out, data.store
    if not share:
        return None
    labels = store.student_labels.reshape(len(store), -1)[:, 0]
    rows = data.fold.train[labels[data.fold.train] >= 0]
    people = np.unique(store.index["subject"][rows])
    num = round(share * len(people))
    if not 0 < num < len(people):
        raise InputError(
            f"--train.held_out {share}: of the {len(people)} training subjects whose "
            f"labels the student may use, that is {num}. Choose a share that leaves "
            "subjects on both sides, or 0."
        )
    rng = np.random.default_rng([config.seed, data.fold.index])
    return np.isin(store.index["subject"], rng.permutation(people)[:num])


def _like(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return mask if labels.ndim == 1 else mask[:, None]


def _moved(
    name: str, cache: Outputs, data: FoldData, labels: np.ndarray, seed: int
) -> Outputs:
    rows = data.fold.train

    def move(tensor: TeacherTensor) -> TeacherTensor:
        if name == "class_mean_teacher":
            return tensor.class_means(rows, labels)
        # The others move rows, whatever is in them.
        own = {"row": np.arange(len(data.store))}
        moved = MOVES[name](own, rows, labels, seed=seed)
        return tensor.moved(moved["row"])

    return {
        stage: {key: move(tensor) for key, tensor in tensors.items()}
        for stage, tensors in cache.items()
    }
