"""Programs that seeds, folds and controls of one structure share."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax

from eegkd.config import RunConfig, TrainConfig, num_steps, stage_config
from eegkd.data.windows.folds import Fold
from eegkd.data.windows.store import WindowStore
from eegkd.evaluate.controls import SYSTEM_CONTROLS
from eegkd.evaluate.rows import A_A, A_A_OF, STUDENT
from eegkd.losses import Balancer
from eegkd.losses.balance import make_balancer
from eegkd.losses.compose import term_sums
from eegkd.pipeline.baselines import small_nets
from eegkd.pipeline.folds import FoldData, part_data, part_of_rows
from eegkd.pipeline.probes import term_values
from eegkd.pipeline.schedule import SMALL_NET, Training, student_rows
from eegkd.systems import Stage, System, balanced_terms, get_stage, init_stage
from eegkd.systems.batches import stage_example
from eegkd.systems.channels import student_columns
from eegkd.train.inputs import upstream_tensors, with_labelled
from eegkd.train.optimiser import stage_optimiser
from eegkd.train.parallel import Runner, make_runner
from eegkd.train.sharding import pick_devices
from eegkd.train.step import make_train_step
from eegkd.train.sweep import Sweep, make_sweep
from eegkd.typing import Batch, Variables

EVAL_BATCH = 256
"""Windows per batch of an evaluation, unless a stage asks for others."""
EVAL_RECORDINGS = 1

Key = tuple[str, str, str]
"""Key of a compiled program: variant, stage of the row, and structure."""


class Program(NamedTuple):
    """The functions of one stage, each compiled on first use.

    Attributes:
        system: System of the stage.
        stage: Name of the stage.
        tx: Optimiser.
        runner: The training step on the devices.
        init: `(key, upstream) -> Variables`.
        finish: `variables -> variables` for use after training.
        predict: `(variables, batch) -> probabilities`; None for a stage that is not
            judged.
        losses: `(variables, upstream, batch) -> sum and count of each term`; None
            where it is not selected by them.
        probed: `(variables in training, sample) -> numbers of windows, by term`, of
            what is measured at evaluations; None where nothing is.
        probed_end: As `probed`, for all that is measured after training.
        many: `() -> ManyPrograms` for members that are trained together.
        num_steps: Updates of a training, the length of its schedule.
        train: Options of the training, the stage's own included.
        balancer: Balancer of the terms; None if weights alone scale them.
    """

    system: System
    stage: str
    tx: optax.GradientTransformation
    runner: Runner
    init: Callable[..., Variables]
    finish: Any
    predict: Any
    losses: Any
    probed: Any
    probed_end: Any
    many: Callable[[], "ManyPrograms"]
    num_steps: int
    train: TrainConfig
    balancer: Balancer | None = None


class ManyPrograms(NamedTuple):
    """The functions of one stage for members along a leading axis.

    Attributes:
        make_step: Step of one member, as runners take it.
        sweep: Training step, mapped over members.
        finish: The program's `finish`, mapped.
        predict: `(variables, batch) -> probabilities [b, members, k]`.
        probed: The program's `probed`, mapped: one number per member and window.
    """

    make_step: Callable[..., Any]
    sweep: Sweep
    finish: Any
    predict: Any
    probed: Any


def program_key(training: Training) -> Key:
    """Returns the key of a training's program."""
    if training.row == SMALL_NET:
        return "", SMALL_NET, training.trial.partition("-")[0]
    alone = training.row in (A_A, A_A_OF)
    return training.variant, training.stage, A_A_OF if alone else ""


def compile_programs(
    systems: Mapping[str, System],
    store: WindowStore,
    folds: Sequence[Fold],
    config: RunConfig,
    *,
    same_teacher: bool = False,
) -> dict[Key, Program]:
    """Builds the programs that the wanted rows need; nothing is compiled yet.

    Args:
        systems: Variant name -> system; "" is the run's own.
        store: Windows.
        folds: The run's folds.
        config: Options of the run.
        same_teacher: True if the variants share the run's own earlier stages.

    Raises:
        InputError: If some fold cannot fill a batch.
    """

    def build(system: System, stage: Stage) -> Program:
        sizes = [num_examples(stage, store, fold) for fold in folds]
        if stage.options.crossfit:
            own = stage_config(config, stage, last=stage is system.stages[-1])
            parts = [part_sizes(stage, store, fold, config.seed) for fold in folds]
            num_steps(own.train, [min(found) for found in parts], stage)  # A check.
        return make_program(system, stage.name, config, sizes)

    programs: dict[Key, Program] = {}
    for variant, system in systems.items():
        for stage in system.stages:
            if stage.terms and not (
                same_teacher and variant and stage is not system.stages[-1]
            ):
                programs[variant, stage.name, ""] = build(system, stage)
    if A_A_OF in student_rows(systems[""], config):
        alone = SYSTEM_CONTROLS[A_A_OF](systems[""])
        student = alone.stages[-1]
        programs["", student.name, A_A_OF] = build(alone, student)
    if SMALL_NET in config.rows:
        nets = small_nets(config.signal, student_columns(config))
        for structure, system in nets.items():
            programs["", SMALL_NET, structure] = build(system, system.stages[-1])
    return programs


def num_examples(stage: Stage, store: WindowStore, fold: Fold) -> int:
    """Returns how many windows, or recordings, a stage trains on in a fold."""
    if stage.scope == "row":
        return len(fold.train)
    return len(set(store.index["recording_id"][fold.train].tolist()))


def part_sizes(
    stage: Stage, store: WindowStore, fold: Fold, seed: int
) -> tuple[int, ...]:
    """Returns how many examples the trainings of a cross-fitted stage have.

    Raises:
        InputError: If there are fewer training subjects than parts.
    """
    data, num = FoldData(store, fold, None), stage.options.crossfit
    parts = part_of_rows(data, num, seed)
    return tuple(
        num_examples(stage, store, part_data(data, parts, str(part)).fold)
        for part in range(1, num + 1)
    )


def make_program(
    system: System, stage_name: str, config: RunConfig, sizes: Sequence[int] = ()
) -> Program:
    """Builds the functions of one stage.

    Args:
        system: The system.
        stage_name: Name of the stage.
        config: Options of the run.
        sizes: Number of examples that each fold trains on; () is for prediction alone.
    """
    stage = get_stage(system, stage_name)
    config = stage_config(config, stage, last=stage is system.stages[-1])
    steps = num_steps(config.train, sizes, stage) if sizes else 1
    tx = stage_optimiser(config.optim, stage, steps)
    balancer = make_balancer(config.train.balance, balanced_terms(stage))
    devices = pick_devices(config.train.devices)

    def make_step(axis_name: str | None):
        if not stage.terms:
            return _not_trained  # A program of prediction alone.
        return make_train_step(
            system,
            stage_name,
            tx,
            balancer=balancer,
            axis_name=axis_name,
            accumulate=config.train.accumulate,
        )

    now = tuple(probe.term for probe in stage.probes if probe.when == "eval")
    every = tuple(probe.term for probe in stage.probes)
    probed = term_values(system, stage_name, now) if now else None
    return Program(
        system=system,
        stage=stage_name,
        tx=tx,
        runner=make_runner(
            config.train.runner,
            make_step,
            devices,
            model=config.train.model_axis,
            fully_sharded=config.train.fully_sharded,
        ),
        init=_make_init(system, stage, config),
        finish=jax.jit(stage.finish) if stage.finish else _unchanged,
        predict=jax.jit(stage.predict) if stage.predict else None,
        losses=None if stage.predict else jax.jit(_loss_sums(system, stage)),
        probed=probed and jax.jit(probed),
        probed_end=jax.jit(term_values(system, stage_name, every)) if every else None,
        many=functools.cache(
            functools.partial(_make_many, stage, make_step, devices, probed)
        ),
        num_steps=steps,
        train=config.train,
        balancer=balancer,
    )


def _make_init(
    system: System, stage: Stage, config: RunConfig
) -> Callable[..., Variables]:
    run = jax.jit(functools.partial(init_stage, stage))

    def init(key: Any, upstream: Mapping[str, Variables]) -> Variables:
        batch = stage_example(system, stage, config.signal)
        loaded = stage.load.read() if stage.load else None
        return run(key, batch, dict(upstream), loaded)

    return init


def _loss_sums(system: System, stage: Stage) -> Callable[..., Any]:
    def run(variables: Variables, upstream: Any, batch: Batch) -> Any:
        found = upstream_tensors(system, stage, upstream, batch)
        own, _ = stage.forward(variables, batch, found, train=False, key=None)
        tensors = {**found, stage.name: own, "batch": with_labelled(batch)}
        return term_sums(stage.terms, tensors)

    return run


def _make_many(
    stage: Stage, make_step: Callable[..., Any], devices: Any, probed: Any
) -> ManyPrograms:
    predict = stage.predict
    return ManyPrograms(
        make_step=make_step,
        sweep=make_sweep(make_step, devices),
        finish=jax.jit(jax.vmap(stage.finish or _unchanged)),
        predict=predict and jax.jit(jax.vmap(predict, in_axes=(0, None), out_axes=1)),
        probed=probed and jax.jit(jax.vmap(probed, in_axes=(0, None))),
    )


def _not_trained(*args: Any) -> Any:
    raise ValueError("A stage without terms is given, and is not trained.")


def _unchanged(variables: Variables) -> Variables:
    return variables


def term_weights(system: System, stage_name: str) -> dict[str, float]:
    """Reads the constant weights of a stage, to hand to another's compiled step."""
    terms = get_stage(system, stage_name).terms
    return {t.name: float(t.weight) for t in terms if not callable(t.weight)}


def inputs_of(system: System, stage: Stage) -> Callable[[Batch], Batch]:
    """Returns `batch -> batch`, the arrays that prediction by a stage may read.

    The student reads the system's inputs alone; others also those of `prepare`.
    """
    if stage is not system.stages[-1] and stage.name != STUDENT:
        return lambda batch: batch
    names = (*system.inputs, *(("mask", "cache") if stage.scope == "recording" else ()))
    return lambda batch: {name: batch[name] for name in names}
