import dataclasses
import doctest
import functools
import re

import jax
import jax.export
import numpy as np
import optax
import pytest

from eegkd.errors import InputError, Interrupted
from eegkd.losses import Term
from eegkd.systems import Stage, System
from eegkd.train import (
    LoopOptions,
    OptimConfig,
    init_state,
    make_optimiser,
    make_train_step,
    sweep,
)
from eegkd.train.parallel import single
from eegkd.train.state import stack
from eegkd.train.sweep import (
    Member,
    sweep_weights,
    train_many,
)
from eegkd.train.sweep_room import member_bytes, members_at_once
from tests.support import toy
from tests.support.toy_runs import ToyLoader, flat

NUM_STEPS = 8
GRID = {"kd": (0.25, 2.0)}
SYSTEM = toy.make_system()
STUDENT = SYSTEM.stages[1]
INIT = jax.jit(STUDENT.init)
TEACHERS = functools.cache(lambda seed: toy.make_variables(SYSTEM, seed)["teacher"])


class SeedLoader(ToyLoader):
    """Batches that differ from seed to seed."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def __next__(self):
        batch = toy.make_batch(8, (self.seed, self.next))
        self.next += 1
        return batch


OPTIMISERS = {
    "sgd": optax.sgd(0.1),
    "adamw": make_optimiser(OptimConfig(learning_rate=0.05), NUM_STEPS),
}


@functools.cache
def runners(tx, dropout=0.2, devices=1):
    """One member after another, and together: compiled once for all tests."""
    system = toy.make_system(dropout)
    step = lambda axis: make_train_step(
        system, "student", OPTIMISERS[tx], axis_name=axis
    )
    return single(step), sweep.make_sweep(step, jax.devices()[:devices])


def make(tx, *, seeds=(0, 1, 2), own_teachers=False, loader=None):
    """Three seeds of start, data and dropout, times two weights."""
    tx = OPTIMISERS[tx]
    teacher = TEACHERS(0)
    members = []
    for point in sweep_weights(SYSTEM, "student", GRID, seeds=seeds):
        key = jax.random.key(point.seed)
        start = INIT(key, toy.make_batch(), {})
        if own_teachers:
            teacher = TEACHERS(10 + point.seed)
        members.append(
            Member(
                point.name,
                init_state(STUDENT, start, tx, key, weights=point.weights),
                start.frozen,
                {"teacher": teacher},
                loader or SeedLoader(point.seed),
            )
        )
    return members


def sums(variables):
    """One number per member that neither only falls nor only rises."""
    kernels = np.asarray(variables.params["in"]["kernel"])
    return [{"sum": float(np.sin(40 * np.sum(k)))} for k in kernels]


JUDGED = LoopOptions(eval_every=1, monitor="sum", mode="max")


def distance(got, want):
    """Largest relative difference of parameters and statistics, array by array."""
    pairs = zip(
        jax.tree.leaves((got.params, got.state)),
        jax.tree.leaves((want.params, want.state)),
        strict=True,
    )
    return max(
        float(np.max(np.abs(np.subtract(x, y))) / max(np.max(np.abs(y)), 1e-6))
        for x, y in pairs
    )


@pytest.mark.parametrize(
    ("devices", "dropout", "own_teachers"),
    [
        (2, 0.2, True),
        pytest.param(1, 0.0, False, marks=pytest.mark.slow),
        pytest.param(1, 0.2, True, marks=pytest.mark.slow),
        pytest.param(2, 0.2, False, marks=pytest.mark.slow),
        pytest.param(4, 0.0, True, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_gives_the_numbers_of_each_member_alone(devices, dropout, own_teachers):
    alone, together = runners("sgd", dropout, devices)
    options = {"num_steps": NUM_STEPS, "options": LoopOptions(log_every=2)}
    got = train_many(together, make("sgd", own_teachers=own_teachers), **options)
    want = train_many(alone, make("sgd", own_teachers=own_teachers), **options)
    assert len(got) == len(want) == 6
    for (state, history), (its_state, its) in zip(got, want, strict=True):
        assert distance(state, its_state) < 1e-5
        assert [row.keys() for row in history.rows] == [row.keys() for row in its.rows]
        for row, its_row in zip(history.rows, its.rows, strict=True):
            for name, value in its_row.items():
                assert row[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
        np.testing.assert_array_equal(flat(state)[-1], flat(its_state)[-1])
        bits = jax.random.key_data(state.key), jax.random.key_data(its_state.key)
        np.testing.assert_array_equal(*map(np.asarray, bits))
    spread = [float(state.params["in"]["kernel"].sum()) for state, _ in got]
    assert len({round(x, 4) for x in spread}) == 6, "members are not told apart"


@pytest.mark.slow
def test_a_wrong_dropout_key_would_be_seen():
    alone, together = runners("sgd")
    members = make("sgd")
    (want, _), *_ = train_many(alone, members[:1], num_steps=NUM_STEPS)
    other = members[0].state.replace(key=jax.random.key(9))
    wrong = [members[0]._replace(state=other, loader=SeedLoader(0)), *make("sgd")[1:]]
    (got, _), *_ = train_many(together, wrong, num_steps=NUM_STEPS)
    assert distance(got, want) > 1e-3


@pytest.mark.slow
def test_adamw_and_each_members_own_best():
    alone, together = runners("adamw", devices=3)
    options = {"num_steps": NUM_STEPS, "options": JUDGED, "evaluate": sums}
    got = train_many(together, make("adamw"), **options)
    want = train_many(alone, make("adamw"), **options)
    best = [history.best_step for _, history in want]
    assert len(set(best)) > 2, "the members' best steps should differ"
    assert [history.best_step for _, history in got] == best
    for (state, history), (its_state, its) in zip(got, want, strict=True):
        # Adam divides by roots of tiny second moments: rounding grows.
        assert distance(state, its_state) < 1e-3
        assert distance(history.best, its.best) < 1e-3
        assert history.best_value == pytest.approx(its.best_value, abs=1e-2)


def test_one_loader_and_one_compilation_serve_all_members(caplog):
    loader = SeedLoader(5)
    alone, together = runners("sgd")
    members = make("sgd", loader=loader)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        got = train_many(together, members, num_steps=NUM_STEPS)
    assert caplog.text.count("Finished XLA compilation of jit(step)") == 1
    assert loader.next == NUM_STEPS
    want = train_many(alone, make("sgd", loader=SeedLoader(5)), num_steps=NUM_STEPS)
    for (state, _), (its_state, _) in zip(got, want, strict=True):
        assert distance(state, its_state) < 1e-5


@pytest.mark.parametrize("at", [1, 5])
def test_stop_and_resume_gives_the_same_bits(tmp_path, at):
    _, together = runners("adamw", devices=3)
    options = dataclasses.replace(JUDGED, log_every=3)
    given = {"num_steps": NUM_STEPS, "evaluate": sums}
    want = train_many(together, make("adamw"), options=options, **given)
    options = dataclasses.replace(options, checkpoint_dir=tmp_path)
    done, rows = [], []
    with pytest.raises(Interrupted, match=f"step {at} of {NUM_STEPS}"):
        train_many(
            together,
            make("adamw"),
            options=dataclasses.replace(options, stop=lambda: done[-1] == 6 * at),
            progress=done.append,
            **given,
        )
    got = train_many(
        together,
        make("adamw"),
        options=options,
        log=lambda i, row: rows.append((i, row)),
        **given,
    )
    for (state, history), (whole, its) in zip(got, want, strict=True):
        assert history.resumed_from == at
        for x, y in zip(flat(state), flat(whole), strict=True):
            np.testing.assert_array_equal(x, y)
        for x, y in zip(flat(history.best), flat(its.best), strict=True):
            np.testing.assert_array_equal(x, y)
        assert (history.rows, history.best_step) == (its.rows, its.best_step)
    assert {i for i, _ in rows} == set(range(6))


def test_other_members_do_not_resume_a_sweep(tmp_path):
    _, together = runners("adamw", devices=3)

    options = LoopOptions(checkpoint_dir=tmp_path)

    options = LoopOptions(checkpoint_dir=tmp_path)

    def run(members):
        train_many(together, members, num_steps=1, options=options)

    run(make("adamw"))
    with pytest.raises(InputError, match="of another model"):
        run(make("adamw", seeds=(0, 1)))
    with pytest.raises(InputError, match="of 6 data orders, not of 1"):
        run(make("adamw", loader=SeedLoader(0)))


@pytest.mark.parametrize("devices", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_sweep_lowers_for_accelerators_and_members_never_talk(devices):
    _, together = runners("adamw", devices=devices)
    members = make("adamw")
    args = (
        stack([m.state for m in members]),
        stack([m.frozen for m in members]),
        members[0].upstream,
        jax.tree.map(lambda *xs: np.stack(xs), *[next(m.loader) for m in members]),
    )
    step = together.step(sweep.member_mesh(together.devices, 6), True, False)
    exported = jax.export.export(step, platforms=("tpu", "cuda"))(*args)
    assert exported.nr_devices == devices
    words = ("all_reduce", "all_gather", "collective_permute", "all_to_all")
    assert not [word for word in words if word in exported.mlir_module()]


def test_a_loss_that_is_not_finite_names_the_member():
    _, together = runners("sgd")
    members = make("sgd")
    bad = members[4].state
    bad = bad.replace(weights=bad.weights | {"kd": bad.weights["kd"] * np.nan})
    members[4] = members[4]._replace(state=bad)
    with pytest.raises(InputError, match="loss of kd=2-seed1 is not finite at step 1"):
        train_many(together, members, num_steps=NUM_STEPS)


def test_members_of_another_structure_are_refused():
    _, together = runners("sgd")
    members = make("sgd")
    frozen = {"classes": members[1].frozen["classes"][:2]}
    wrong = [members[0], members[1]._replace(frozen=frozen)]
    with pytest.raises(
        ValueError,
        match=re.escape(
            "Members 'kd=0.25-seed0' and 'kd=0.25-seed1' cannot share a program: "
            "frozen.classes is float32[3, 4] in one and float32[2, 4] in the other."
        ),
    ):
        train_many(together, wrong, num_steps=2)
    wrong = [members[0], members[1]._replace(upstream={})]
    with pytest.raises(ValueError, match="upstream.teacher.* and absent in"):
        train_many(together, wrong, num_steps=2)
    with pytest.raises(ValueError, match="different names"):
        train_many(together, members[:1] * 2, num_steps=2)
    with pytest.raises(ValueError, match="got none"):
        train_many(together, [], num_steps=2)
    key = jax.random.key(0, impl="rbg")
    wrong = [members[0]._replace(state=members[0].state.replace(key=key))]
    with pytest.raises(ValueError, match="kind rbg"):
        train_many(together, wrong, num_steps=2)


def test_the_points_of_a_sweep():
    system = toy.make_system()
    points = sweep_weights(system, "student", {"kd": (0, 1), "clip": (3,)})
    assert [p.name for p in points] == ["kd=0-clip=3-seed0", "kd=1-clip=3-seed0"]
    assert points[1].weights == {"clip": 3.0, "kd": 1.0}
    (point,) = sweep_weights(system, "student", {}, seeds=(7,))
    assert point == ("seed7", 7, {"clip": 0.5, "kd": 0.5})
    with pytest.raises(ValueError, match="no term of constant weight ot; it has clip"):
        sweep_weights(system, "student", {"ot": (1.0,)})
    with pytest.raises(ValueError, match="no points"):
        sweep_weights(system, "student", {"kd": ()})
    scheduled = Term("kd", min, (), optax.constant_schedule(1.0))
    stage = Stage("student", min, min, (scheduled,))
    with pytest.raises(ValueError, match="it has none"):
        sweep_weights(System("s", (), min, (stage,), min), "student", {"kd": (1.0,)})


def test_the_example_of_sweep_weights():
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(sweep_weights, globs={"sweep_weights": sweep_weights})
    assert doctest.DocTestRunner().run(example).attempted == 5


class Chip:
    """Stands for an accelerator."""

    platform = "gpu"

    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return self.limit and {"bytes_limit": self.limit}


@pytest.mark.parametrize(
    ("how", "chips", "want"),
    [
        ("sequential", [Chip(1000)], 1),
        ("auto", jax.devices()[:1], 1),
        ("vmap", jax.devices()[:1], 20),
        ("auto", [Chip(1000)], 8),
        ("vmap", [Chip(1000)], 8),
        ("auto", [Chip(1000)] * 2, 16),
        ("auto", [Chip(1000)] * 4, 20),
        ("auto", [Chip(50)], 1),
        ("auto", [Chip(None)], 20),
    ],
)
def test_how_many_members_share_a_program(how, chips, want):
    assert members_at_once(how, 20, 100, chips) == want


def test_the_memory_of_a_member_counts_its_copies():
    state, frozen, upstream = make("sgd")[0][1:4]
    step = lambda axis: make_train_step(SYSTEM, "student", OPTIMISERS["sgd"])
    small, large = (
        member_bytes(step, state, frozen, upstream, toy.make_batch(size))
        for size in (8, 80)
    )
    grows = sum(x.nbytes for x in toy.make_batch(72).values())
    assert large - small >= 2 * grows
    held = sum(np.asarray(x).nbytes for x in flat(state))
    assert small > held
