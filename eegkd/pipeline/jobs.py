"""Inputs of each training of a wave: variables, earlier stages' outputs, labels."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.cache.read import TeacherTensor
from eegkd.config import RunConfig
from eegkd.evaluate.controls import (
    BY_CLASS,
    MOVES,
    OUTPUT_CONTROLS,
    SYSTEM_CONTROLS,
)
from eegkd.evaluate.rows import A_A, A_A_OF, STUDENT
from eegkd.pipeline.baselines import TRIALS
from eegkd.pipeline.class_groups import groups_of
from eegkd.pipeline.compiled import Key, Program, program_key, term_weights
from eegkd.pipeline.fit import Job
from eegkd.pipeline.folds import FoldData, hidden_labels, hold_out, part_data
from eegkd.pipeline.labelled import labelled_alone, with_share
from eegkd.pipeline.observe import Observer
from eegkd.pipeline.probes import Samples, take_samples
from eegkd.pipeline.schedule import SMALL_NET, Training, Wave
from eegkd.pipeline.special_outputs import Parts, divided, stage_outputs
from eegkd.pipeline.teacher_choice import Teacher
from eegkd.pipeline.teacher_outputs import Outputs, teacher_outputs
from eegkd.systems import Stage, System, get_stage
from eegkd.systems.batches import start_stage
from eegkd.systems.outputs import needs_outputs
from eegkd.train.distributed import in_turn
from eegkd.typing import Variables


class Setting(NamedTuple):
    """Values that all trainings of a run share.

    Attributes:
        systems: Variant name -> system; "" is the run's own.
        programs: Compiled programs, by `program_key`.
        teachers: Variant name -> source of the earlier stages' outputs.
        config: Options of the run.
        folder: The run folder.
        same_teacher: True if the variants share the run's own earlier stages.
    """

    systems: Mapping[str, System]
    programs: Mapping[Key, Program]
    teachers: Mapping[str, Teacher]
    config: RunConfig
    folder: Path
    same_teacher: bool = False


class FoldState(NamedTuple):
    """One fold in progress.

    Attributes:
        data: Windows of the fold.
        variables: Finished stages: (variant, stage, part) -> variables.
    """

    data: FoldData
    variables: dict[tuple[str, str, str], Variables]


def make_jobs(
    wave: Wave, setting: Setting, state: FoldState, observer: Observer
) -> list[tuple[Training, Program, Job, FoldData]]:
    """Makes the jobs of a wave.

    Outputs of earlier stages are computed, or opened, only if a training is left that
    reads them.

    Returns:
        Each training with its program, its job and the windows it is trained on.
    """
    first = wave[0]
    left = any(not training.done(setting.folder) for training in wave)
    if first.row == SMALL_NET:
        return [_small_net_job(t, setting, state.data) for t in wave]
    system = setting.systems[first.variant]
    stage = get_stage(system, first.stage)
    if stage is not system.stages[-1]:
        return _stage_jobs(wave, stage, setting, state, left)
    return _student_jobs(wave, setting, state, observer, left)


def cache_folder(training: Training, setting: Setting) -> Path:
    """Returns the folder of the outputs that a student reads in training."""
    return setting.folder / f"fold{training.fold}" / training.variant / "cache"


def upstream_of(
    setting: Setting, state: FoldState, variant: str, stage: Stage
) -> dict[str, Variables]:
    """Returns the variables of the stages before one stage, by name.

    Stages whose outputs came from another framework have none.
    """
    system = setting.systems[variant]
    position = [other.name for other in system.stages].index(stage.name)
    owner = "" if setting.same_teacher else variant
    upstream: dict[str, Variables] = {}
    for other in system.stages[:position]:
        key = owner, other.name, ""
        if not other.terms and key not in state.variables:
            state.variables[key] = given_variables(
                system, other, setting.config, upstream
            )
        if key in state.variables:
            upstream[other.name] = state.variables[key]
    return upstream


def given_variables(
    system: System, stage: Stage, config: RunConfig, upstream: Mapping[str, Variables]
) -> Variables:
    """Makes the variables of a stage that is not trained."""
    own = start_stage(system, stage, config.signal, upstream)
    return stage.finish(own) if stage.finish else own


def _small_net_job(
    training: Training, setting: Setting, data: FoldData
) -> tuple[Training, Program, Job, FoldData]:
    rates = {trial.name: trial.rate for trial in TRIALS}
    job = Job(
        training.model,
        training.seed or 0,
        setting.folder / training.place,
        labels=data.store.student_labels,
        learning_rate=rates[training.trial],
        rows=labelled_alone(data),
    )
    return training, setting.programs[program_key(training)], job, data


def _stage_jobs(
    wave: Wave, stage: Stage, setting: Setting, state: FoldState, left: bool
) -> list[tuple[Training, Program, Job, FoldData]]:
    """Makes the jobs of a stage before the student, whole and in parts."""
    config, data = setting.config, state.data
    variant = wave[0].variant
    upstream = upstream_of(setting, state, variant, stage)
    held_out = hold_out(data, config.train.held_out, config.seed)
    labels = None if held_out is None else hidden_labels(data.store, held_out)
    parts = divided(stage, data, config.seed)
    cache = None
    if left and needs_outputs(setting.systems[variant], stage):
        cache = special_outputs(setting, state, variant, stage, upstream)
    program = setting.programs[program_key(wave[0])]
    return [
        (
            training,
            program,
            Job(
                training.model,
                0,
                setting.folder / training.place,
                upstream=upstream,
                cache=cache,
                labels=labels,
            ),
            part_data(data, parts, training.part),
        )
        for training in wave
    ]


def _student_jobs(
    wave: Wave, setting: Setting, state: FoldState, observer: Observer, left: bool
) -> list[tuple[Training, Program, Job, FoldData]]:
    """Makes the jobs of a student and of its controls."""
    config, data, variant = setting.config, state.data, wave[0].variant
    system, teacher = setting.systems[variant], setting.teachers[variant]
    student = system.stages[-1]
    upstream = upstream_of(setting, state, variant, student)
    held_out = hold_out(data, config.train.held_out, config.seed)
    extras = {} if held_out is None else {"held_out": held_out.astype(np.float32)}
    cache: Outputs | None = None
    samples: Samples = {}
    if left:  # A finished training is only read, and needs no teacher.
        special = None
        if needs_outputs(system, student):
            special = special_outputs(setting, state, variant, student, upstream)
        fill = functools.partial(
            teacher_outputs,
            teacher,
            system,
            upstream,
            data,
            config,
            cache_folder(wave[0], setting),
            special=special,
            observer=observer,
        )
        cache = in_turn(fill) if teacher.mode == "cached" else fill()
        samples = take_samples(system, upstream, data, special)
    # A batch of whole recordings has what each of them holds.
    rows = with_share(data, config.train.labelled_share)
    rows = rows if student.scope == "row" else None

    @functools.cache
    def groups() -> np.ndarray:
        return groups_of(
            system, setting.programs, upstream, cache or {}, data, config, variant
        )

    jobs = []
    for training in wave:
        job = Job(
            training.model,
            training.seed or 0,
            setting.folder / training.place,
            upstream=upstream,
            cache=cache,
            labels=data.store.student_labels,
            samples=samples,
            extras=extras,
            rows=rows,
        )
        program = setting.programs[program_key(training)]
        if training.row == A_A:  # Seeds that no other row of the run has.
            job = job._replace(seed=job.seed + config.num_seeds)
        control = _as_control(job, training, system, data, groups)
        jobs.append((training, program, control, data))
    return jobs


def _as_control(
    job: Job,
    training: Training,
    system: System,
    data: FoldData,
    groups: Callable[[], np.ndarray],
) -> Job:
    """Returns the job of a control: the student's with other inputs."""
    if training.row == STUDENT:
        return job
    if training.row in (A_A, A_A_OF):
        return job._replace(upstream={}, cache=None)
    if training.row == "alpha_0":
        # A schedule is no input of the compiled step: such a term keeps it. It moves
        # what a bridge alone has (a router's entropy), and nothing that is kept.
        own = term_weights(system, training.stage)
        control = SYSTEM_CONTROLS[training.row](system)
        weights = term_weights(control, training.stage)
        return job._replace(weights={name: weights[name] for name in own})
    if training.row in OUTPUT_CONTROLS and job.cache is not None:
        return job._replace(cache=_moved(training, job.cache, data, groups))
    return job


def _moved(
    training: Training, cache: Any, data: FoldData, groups: Callable[[], np.ndarray]
) -> Outputs:
    """Permutes or averages the teacher's outputs over windows, as a control asks."""
    rows = data.fold.train
    own_groups = groups() if training.row in BY_CLASS else np.zeros(0, np.int64)

    def move(tensor: TeacherTensor) -> TeacherTensor:
        if training.row == "class_mean_teacher":
            return tensor.class_means(rows, own_groups)
        # The others move rows, whatever is in them.
        own = {"row": np.arange(len(data.store))}
        seed = training.seed or 0
        moved = MOVES[training.row](own, rows, own_groups, seed=seed)
        return tensor.moved(moved["row"])

    return {
        stage: {key: move(tensor) for key, tensor in tensors.items()}
        for stage, tensors in cache.items()
    }


def special_outputs(
    setting: Setting,
    state: FoldState,
    variant: str,
    stage: Stage,
    upstream: Mapping[str, Variables],
) -> dict[str, dict[str, np.ndarray]]:
    """Computes outputs that a stage reads of others that cannot run on its batches."""
    system, owner = setting.systems[variant], "" if setting.same_teacher else variant
    parts: Parts = {}
    for (whose, name, part), variables in state.variables.items():
        if whose == owner and part:
            parts.setdefault(name, {})[part] = variables
    return stage_outputs(
        system, stage, upstream, parts, state.data, seed=setting.config.seed
    )
