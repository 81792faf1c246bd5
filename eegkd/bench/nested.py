"""Nested training steps whose differences are the parts of one step.

Each is the whole compiled step of a changed system, so what is timed is what runs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eegkd.losses import Term
from eegkd.systems import Stage, System, get_stage, replace_stage
from eegkd.train.parallel import Runner, make_runner
from eegkd.train.state import TrainState
from eegkd.train.step import make_train_step
from eegkd.typing import Array

_STAND_IN = "stand_in/"


class Nested(NamedTuple):
    """One program of the chain.

    Attributes:
        part: Part of the step that it adds to the program before.
        runner: The program.
        slot: State that it takes and returns: "slim" without the optimiser's, "full",
            or "cut", the full one with its arrays cut over the devices.
        online: True if it computes earlier stages.
    """

    part: str
    runner: Runner
    slot: str
    online: bool


class Choice(NamedTuple):
    """A runner and its devices.

    Attributes:
        name: "single", "pmap", "shard_map" or "mesh".
        devices: Devices to use.
        fully_sharded: True if the runner mesh cuts parameters over them.
    """

    name: str
    devices: list[Any]
    fully_sharded: bool = False


def make_chain(
    system: System,
    stage_name: str,
    tx: optax.GradientTransformation,
    choice: Choice,
    *,
    online: bool,
    accumulate: int = 1,
) -> list[Nested]:
    """Builds the programs, from the bare model to the step that a training runs.

    1. The stage's own name: forward and backward of the model, earlier stages cached,
       with `sum of x^2 / 2` in place of each tensor that a term reads; no optimiser and
       no collective, on every device at once.
    2. "loss/<term>": one term more in place of the stand-ins of what it reads.
    3. "optimiser": the update.
    4. "collectives": the runner's own step: sums and gathers over devices, and the
       larger comparisons of a batch-global loss. Only on several devices.
    5. The earlier stages' names, where they are computed in the step.
    """
    stage = get_stage(system, stage_name)
    alone = choice._replace(name="shard_map" if choice.name == "mesh" else choice.name)
    # Sharded parameters have no program without collectives: compare with whole ones.
    alone = alone._replace(fully_sharded=False)

    def make(choice: Choice, changed: System, tx: Any, *, reduce: bool) -> Runner:
        def make_step(axis_name: str | None) -> Any:
            return make_train_step(
                changed,
                stage_name,
                tx,
                axis_name=axis_name if reduce else None,
                accumulate=accumulate,
            )

        return make_runner(
            choice.name, make_step, choice.devices, fully_sharded=choice.fully_sharded
        )

    idle = _no_update()
    chain = []
    for count in range(len(stage.terms) + 1):
        changed = replace_stage(system, with_stand_ins(stage, count))
        part = f"loss/{stage.terms[count - 1].name}" if count else stage_name
        runner = make(alone, changed, idle, reduce=False)
        chain.append(Nested(part, runner, "slim", online=False))
    whole = make(choice, system, tx, reduce=True)
    slot = "cut" if choice.fully_sharded else "full"
    if len(choice.devices) > 1:
        runner = make(alone, system, tx, reduce=False)
        chain.append(Nested("optimiser", runner, "full", online=False))
        chain.append(Nested("collectives", whole, slot, online=False))
    else:
        chain.append(Nested("optimiser", whole, slot, online=False))
    if online:
        names = [s.name for s in system.stages]
        part = " + ".join(names[: names.index(stage_name)])
        runner = make(choice, system, tx, reduce=True)
        chain.append(Nested(part, runner, slot, online=True))
    return chain


def with_stand_ins(stage: Stage, count: int) -> Stage:
    """Keeps the first `count` terms and replaces inputs of the rest by stand-ins.

    So the backward pass starts from the same tensors, however many terms there are.
    """
    kept = stage.terms[:count]
    own = f"{stage.name}."
    done = {name for term in kept for name in term.inputs}
    left = dict.fromkeys(
        name
        for term in stage.terms[count:]
        for name in term.inputs
        if name.startswith(own) and name not in done
    )
    stand_ins = (Term(_STAND_IN + name, half_square, (name,)) for name in left)
    return stage._replace(terms=(*kept, *stand_ins))


def half_square(x: Array) -> Array:
    """Computes `x^2 / 2`, the mean per example: the gradient is x, not a constant.

    A constant gradient would let the compiler fold products away.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = jax.lax.stop_gradient(x.astype(jnp.float32))
    rows = jnp.reshape(x, (x.shape[0] if x.ndim else 1, -1))
    return 0.5 * jnp.mean(jnp.square(rows.astype(jnp.float32)), axis=-1)


def without_slots(state: TrainState) -> TrainState:
    """Returns the state that the programs without an optimiser share."""
    slots = _no_update().init(state.params)
    return dataclasses.replace(state, opt_state=slots, weights={})


def _no_update() -> optax.GradientTransformation:
    """Returns the parameters unchanged; the gradient is computed for its norm."""

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[Any, optax.EmptyState]:
        del params
        return jax.tree.map(jnp.zeros_like, updates), state

    init: Callable[[Any], optax.EmptyState] = lambda params: optax.EmptyState()
    return optax.GradientTransformation(init, update)
