"""What the compiled step holds: collectives, frozen arrays, other chips' programs."""

import collections
import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.losses import Term
from eegkd.systems import SignalConfig, Stage, System, distilclip_eeg, get_stage
from eegkd.systems.distilclip_eeg.config import TextConfig
from eegkd.train import OptimConfig, init_state, make_optimiser, make_train_step
from eegkd.train.parallel import shard_map, single
from eegkd.typing import Variables
from tests.support import toy
from tests.support.tiny_run import tiny_config
from tests.support.toy_runners import WRAPPED
from tests.support.untrained_runs import random_variables

NIGHTLY = pytest.mark.nightly
RUNNERS = WRAPPED | {"single": single}
SIGNAL = SignalConfig(n_chans=3, n_times=64, rate=64.0)
ODD = 22  # a width that only the text tower has
TEXT = TextConfig(dim=ODD, depth=1, num_heads=2)


@functools.cache
def distilclip(train="finetune"):
    """A small system with its variables, and a batch for 4 devices."""
    text = dataclasses.replace(TEXT, train=train)
    config = tiny_config("", signal=SIGNAL, text=text)
    system = distilclip_eeg.make_system(config)
    rng = np.random.default_rng(0)
    batch = {
        "signal": rng.normal(size=(16, 3, 64)).astype(np.float32),
        "label": np.arange(16, dtype=np.int32) % 2,
    }
    teacher, student = system.stages

    def shapes(key):
        first = teacher.init(key, batch, {})
        finished = teacher.finish(first)
        return first, finished, student.init(key, batch, {"teacher": finished})

    # Programs depend on shapes alone.
    every = jax.eval_shape(shapes, jax.random.key(0))
    first, finished, second = (random_variables(shape, rng) for shape in every)
    made = {"teacher": first, "student": second}
    return system, made, {"teacher": finished}, batch


def lower(system, name, made, upstream, batch, runner, tx, accumulate=1):
    """Returns the jitted step of a runner and its arguments, laid out."""
    spread = RUNNERS[runner](
        lambda axis: make_train_step(
            system, name, tx, axis_name=axis, accumulate=accumulate
        ),
        None,
    )
    state = init_state(get_stage(system, name), made[name], tx, jax.random.key(0))
    args = spread.place((state, made[name].frozen, upstream))
    step = jax.jit(spread.step) if runner == "pmap" else spread.step
    return step, (*args, spread.put(batch))


def compiled(*args, **options):
    step, arguments = lower(*args, **options)
    return step.lower(*arguments).compile().as_text()


def shapes_in(text):
    return [
        tuple(map(int, filter(None, inner.split(","))))
        for inner in re.findall(r"\b[a-z]+\d+\[([\d,]*)\]", text)
    ]


def gradient_all_reduces(hlo):
    """The shapes of each all-reduce that carries more than sums of losses."""
    found = []
    for line in hlo.splitlines():
        head, operation, _ = line.partition(" all-reduce(")
        if not operation:
            head, operation, _ = line.partition(" all-reduce-start(")
        if operation:
            shapes = shapes_in(head.partition(" = ")[2])
            if any(shapes):
                found.append(shapes)
    return found


def shapes_of(tree):
    return [np.shape(x) for x in jax.tree.leaves(tree)]


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("runner", "accumulate"), [("shard_map", 1), ("pmap", 1), ("shard_map", 4)]
)
def test_gradients_travel_in_one_all_reduce(runner, accumulate):
    system = toy.make_system()
    made = toy.make_variables(system)
    tx, batch = optax.sgd(0.3), toy.make_batch()
    hlo = compiled(system, "student", made, made, batch, runner, tx, accumulate)
    (shapes,) = gradient_all_reduces(hlo)
    sent, wanted = map(collections.Counter, (shapes, shapes_of(made["student"].params)))
    assert wanted <= sent


@pytest.mark.optimised
def test_a_gradient_sent_in_parts_is_counted():
    """The control: two reductions that depend on each other cannot be fused."""
    system = toy.make_system()
    made = toy.make_variables(system)

    def twice(axis):
        def update(grads, state, params=None):
            mean = jax.lax.pmean(jax.tree.map(jnp.square, grads), axis)
            return jax.tree.map(lambda g, m: -g / (1 + m), grads, mean), state

        tx = optax.GradientTransformation(lambda params: (), update)
        return make_train_step(system, "student", tx, axis_name=axis)

    spread = shard_map(twice)
    state = init_state(
        system.stages[1], made["student"], optax.identity(), jax.random.key(0)
    ).replace(opt_state=())
    args = spread.place((state, made["student"].frozen, made))
    hlo = spread.step.lower(*args, spread.put(toy.make_batch())).compile().as_text()
    assert len(gradient_all_reduces(hlo)) > 1


@pytest.mark.optimised
@pytest.mark.parametrize("runner", ["shard_map", pytest.param("pmap", marks=NIGHTLY)])
@pytest.mark.parametrize("name", ["teacher", "student"])
def test_gradients_of_a_real_system_travel_in_one_all_reduce(name, runner):
    system, made, finished, batch = distilclip()
    tx = make_optimiser(OptimConfig(), 10)
    upstream = finished if name == "student" else {}
    hlo = compiled(system, name, made, upstream, batch, runner, tx)
    (shapes,) = gradient_all_reduces(hlo)
    sent, wanted = map(collections.Counter, (shapes, shapes_of(made[name].params)))
    assert wanted <= sent


def computed(hlo, shape):
    """Operations whose result has a shape, but for arguments that are handed on."""
    passed = {"parameter", "get-tuple-element", "bitcast", "copy"}
    dims = re.escape(f"[{','.join(map(str, shape))}]")
    found = re.findall(rf" = [a-z]+\d+{dims}(?:{{[^}}]*}})? ([\w-]+)\(", hlo)
    return [operation for operation in found if operation not in passed]


PRIME = (37, 41)


def prime_system(trained):
    """A layer of a shape that nothing else has: frozen, or masked in the optimiser."""

    def init(key, batch, earlier):
        large = {"large": jax.random.normal(key, PRIME)}
        small = {"small": jnp.ones((41, 3))}
        if trained:
            return Variables(small | large, {}, {})
        return Variables(small, large, {})

    def forward(variables, batch, upstream, *, train, key):
        x = jnp.reshape(batch["signal"], (batch["signal"].shape[0], -1))
        large = (variables.params | variables.frozen)["large"]
        y = jnp.tanh(x @ large) @ variables.params["small"]
        return {"y": jnp.sum(y, axis=-1)}, variables.state

    terms = (Term("y", lambda y: y**2, ("s.y",)),)
    stages = (Stage("s", init, forward, terms),)
    return System("prime", ("signal",), lambda x: x, stages, lambda *x: x[2])


@pytest.mark.optimised
@pytest.mark.parametrize("runner", ["single", "shard_map", "pmap", "mesh"])
def test_frozen_arrays_have_no_gradient(runner):
    batch = {"signal": np.ones((8, 1, PRIME[0]), np.float32)}
    found = {}
    for trained in (False, True):
        system = prime_system(trained)
        made = {"s": system.stages[0].init(jax.random.key(0), batch, {})}
        # The control differentiates the array and throws the update away.
        groups = {"train": optax.adam(0.1), "keep": optax.set_to_zero()}
        tx = optax.multi_transform(
            groups, {"small": "train"} | ({"large": "keep"} if trained else {})
        )
        hlo = compiled(system, "s", made, {}, batch, runner, tx)
        assert PRIME in shapes_in(hlo)
        found[trained] = computed(hlo, PRIME)
    assert found[False] == []
    assert found[True] != []


@pytest.mark.optimised
@pytest.mark.parametrize("train", ["frozen", "finetune"])
def test_a_frozen_text_tower_has_no_gradient(train):
    """The control is the same tower, trained."""
    system, frozen, _, batch = distilclip("frozen")
    others = set(shapes_of((frozen["teacher"].params, frozen["teacher"].state)))
    tower = {s for s in shapes_of(frozen["teacher"].frozen["bert"]) if len(s) > 1}
    tower -= others
    assert len(tower) >= 5
    system, made, _, batch = distilclip(train)
    tx = make_optimiser(OptimConfig(), 10)
    hlo = compiled(system, "teacher", made, {}, batch, "shard_map", tx)
    found = {shape: computed(hlo, shape) for shape in tower}
    if train == "frozen":
        assert not any(found.values()), found
    else:
        assert all(found.values()), found


def export(name, runner, accumulate):
    system, made, finished, batch = distilclip()
    tx = make_optimiser(OptimConfig(), 10)
    upstream = finished if name == "student" else {}
    step, args = lower(system, name, made, upstream, batch, runner, tx, accumulate)
    exported = jax.export.export(step, platforms=("tpu", "cuda"))(*args)
    assert exported.platforms == ("tpu", "cuda")
    assert exported.nr_devices == (1 if runner == "single" else 4)


# Each runner once, with each stage and each number of micro-batches in turn.
LOWERED = {
    ("student", "sharded", 1): (),
    ("teacher", "single", 1): pytest.mark.slow,
    ("student", "pmap", 1): pytest.mark.slow,
    ("teacher", "shard_map", 2): pytest.mark.slow,
    ("student", "mesh", 2): pytest.mark.slow,
    ("teacher", "both", 1): pytest.mark.slow,
    ("student", "model", 2): pytest.mark.slow,
}


@pytest.mark.parametrize(
    ("name", "runner", "accumulate"),
    [
        pytest.param(*case, marks=LOWERED.get(case, NIGHTLY))
        for case in itertools.product(("teacher", "student"), RUNNERS, (1, 2))
    ],
)
def test_steps_lower_for_tpu_and_cuda(name, runner, accumulate):
    export(name, runner, accumulate)
