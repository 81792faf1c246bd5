"""What is compiled once and shared by seeds, folds and controls of one structure."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from eegkd.data.batches import ZScore, eval_batches
from eegkd.data.store import WindowStore
from eegkd.losses import Balancer, gradnorm, uncertainty
from eegkd.pipeline.config import RunConfig
from eegkd.pipeline.watch import term_values
from eegkd.systems import Stage, System, get_stage, keep_all
from eegkd.train.optimiser import make_optimiser
from eegkd.train.parallel import MakeStep, Runner, make_runner
from eegkd.train.sharding import fetch, pick_devices
from eegkd.train.step import make_train_step, upstream_tensors
from eegkd.train.sweep import Sweep, make_sweep
from eegkd.typing import Batch, Variables

EVAL_BATCH = 256
BALANCERS: Mapping[str, Callable[[], Balancer]] = {
    "uncertainty": uncertainty,
    "gradnorm": gradnorm,
}


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
    tx = make_optimiser(optim, num_steps, labels=stage.labels, depths=stage.depths)
    balancer = stage_balancer(config.train.balance, stage)
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


def stage_balancer(name: str, stage: Stage) -> Balancer | None:
    """Makes what scales a stage's terms; weights that are fixed need nothing."""
    if name == "fixed" or len(stage.terms) < 2:
        return None
    return BALANCERS[name]()


def term_weights(system: System, stage_name: str) -> dict[str, float]:
    """Reads the constant weights of a stage, to hand to another's compiled step."""
    terms = get_stage(system, stage_name).terms
    return {t.name: float(t.weight) for t in terms if not callable(t.weight)}


def predict_rows(
    program: Program,
    variables: Variables,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> np.ndarray:
    """Computes the probabilities of some windows, f32[n, k]."""
    names = program.system.inputs

    def run(batch: Batch) -> Any:
        return program.predict(variables, {name: batch[name] for name in names})

    return collect(run, program.system, store, rows, zscore)


def upstream_outputs(
    system: System,
    stage_name: str,
    upstream: Mapping[str, Variables],
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Runs the stages that one stage reads, over some windows.

    Returns:
        Stage name -> tensor name -> array aligned with the store's rows. Rows that
        were not asked for are NaN, so that reading one by mistake is seen at once.
    """
    stage = get_stage(system, stage_name)
    run = jax.jit(functools.partial(upstream_tensors, system, stage, upstream))
    values = collect(run, system, store, rows, zscore)

    def spread(value: np.ndarray) -> np.ndarray:
        whole = np.full((len(store), *value.shape[1:]), np.nan, value.dtype)
        whole[rows] = value
        return whole

    return jax.tree.map(spread, values)


def collect(
    run: Any,
    system: System,
    store: WindowStore,
    rows: np.ndarray,
    zscore: ZScore | None,
) -> Any:
    """Runs full batches without waiting for each, and drops the padding."""
    prepare = prepare_fn(system)
    size = min(EVAL_BATCH, len(rows))
    batches = eval_batches(store, rows, batch_size=size, prepare=prepare, zscore=zscore)
    pending = []
    for batch in batches:
        valid = batch.pop("valid")
        pending.append((run(batch), valid))
    parts = [jax.tree.map(lambda x, v=v: fetch(x)[v], out) for out, v in pending]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def prepare_fn(system: System) -> Any:
    """Returns the system's `prepare`, or None where it adds nothing.

    Calling it for every window would cost more than the step of a small student.
    """
    return None if system.prepare is keep_all else system.prepare
