"""What is compiled once and shared by seeds, folds and controls of one structure."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import optax

from eegkd.config import RunConfig
from eegkd.losses import Balancer
from eegkd.losses.balance import make_balancer
from eegkd.pipeline.probes import term_values
from eegkd.systems import System, get_stage
from eegkd.train.optimiser import stage_optimiser
from eegkd.train.parallel import MakeStep, Runner, make_runner
from eegkd.train.sharding import pick_devices
from eegkd.train.step import make_train_step
from eegkd.train.sweep import Sweep, make_sweep


class Program(NamedTuple):
    """The functions of one stage, each compiled on first use.

    Attributes:
        system: Whose stage it is.
        stage: Its name.
        tx: The optimiser of its training.
        runner: The training step on the devices.
        init: `(key, batch, upstream) -> Variables`.
        finish: `variables -> variables` for use after training.
        predict: `(variables, batch) -> probabilities`.
        watched: `(variables in training, sample) -> a number a window, by term`; None
            where nothing is watched.
        measured: The same of what is measured after training.
        many: The same for models that are trained together.
        num_steps: Updates of a training, which its schedule is made for.
        balancer: What scales the terms; None where their weights alone do.
    """

    system: System
    stage: str
    tx: optax.GradientTransformation
    runner: Runner
    init: Any
    finish: Any
    predict: Any
    watched: Any
    measured: Any
    many: "ManyPrograms"
    num_steps: int
    balancer: Balancer | None = None


class ManyPrograms(NamedTuple):
    """The functions of one stage for members along a leading axis.

    Attributes:
        make_step: Of one member, as runners take it.
        sweep: Its training step, mapped.
        finish: As a program's, mapped.
        predict: `(variables, batch) -> probabilities [b, members, k]`.
        watched: As a program's, mapped: a number a member and window.
    """

    make_step: MakeStep
    sweep: Sweep
    finish: Any
    predict: Any
    watched: Any


def make_program(
    system: System, stage_name: str, config: RunConfig, num_steps: int
) -> Program:
    """Builds the functions of one stage for trainings of `num_steps` updates."""
    stage = get_stage(system, stage_name)
    optim = config.optim
    if stage is not system.stages[-1] and optim.teacher_learning_rate:
        rate = optim.teacher_learning_rate
        optim = dataclasses.replace(optim, learning_rate=rate)
    tx = stage_optimiser(optim, stage, num_steps)
    balancer = make_balancer(config.train.balance, stage.terms)
    devices = pick_devices(config.train.devices)

    def make_step(axis_name: str | None):
        return make_train_step(
            system,
            stage_name,
            tx,
            balancer=balancer,
            axis_name=axis_name,
            accumulate=config.train.accumulate,
        )

    finish = stage.finish or (lambda variables: variables)
    predict = functools.partial(system.predict, stage_name)
    watched = measured = None
    if stage.watched:
        watched = term_values(system, stage_name, stage.watched)
    if stage.watched or stage.measured:
        every = (*stage.watched, *stage.measured)
        measured = jax.jit(term_values(system, stage_name, every))
    many = ManyPrograms(
        make_step=make_step,
        sweep=make_sweep(make_step, devices),
        finish=jax.jit(jax.vmap(finish)),
        predict=jax.jit(jax.vmap(predict, in_axes=(0, None), out_axes=1)),
        watched=watched and jax.jit(jax.vmap(watched, in_axes=(0, None))),
    )
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
        init=jax.jit(stage.init),
        finish=jax.jit(finish) if stage.finish else finish,
        predict=jax.jit(predict),
        watched=watched and jax.jit(watched),
        measured=measured,
        many=many,
        num_steps=num_steps,
        balancer=balancer,
    )


def term_weights(system: System, stage_name: str) -> dict[str, float]:
    """Reads the constant weights of a stage, to hand to another's compiled step."""
    terms = get_stage(system, stage_name).terms
    return {t.name: float(t.weight) for t in terms if not callable(t.weight)}
