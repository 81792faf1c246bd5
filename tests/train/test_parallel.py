from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from eegkd.errors import InputError
from eegkd.train import make_runner, make_train_step
from eegkd.train.parallel import mesh, shard_map
from eegkd.train.sharding import fetch, make_mesh, on_one_device, pick_devices
from eegkd.train.sharding import shard_rule as make_rule
from tests.support import toy
from tests.support.processes import launch
from tests.support.toy_runners import WRAPPED, flat, largest_error, train_toy

ROOT = Path(__file__).parents[2]
QUICK = ["shard_map-1", "sharded-1"]
ALL = [f"{name}-{accumulate}" for name in WRAPPED for accumulate in (1, 4)]


@pytest.fixture(scope="module")
def alone():
    state = train_toy(lambda make, _: make_runner("single", make), None)
    return flat(state)


def check(folder, cases, alone):
    errors = {}
    for case in cases:
        with np.load(folder / f"{case}.npz") as got:
            errors[case] = largest_error(dict(got), alone)
    assert max(errors.values()) < 1e-5, errors


def test_the_toy_moves_far_enough_to_see_an_error(alone):
    before = toy.make_variables(toy.make_system())["student"].params
    for path, x in jax.tree_util.tree_leaves_with_path((before, None)):
        moved = np.max(np.abs(alone[jax.tree_util.keystr(path)] - x))
        assert moved > 1e-3 * np.max(np.abs(x))


@pytest.mark.parametrize(
    "case", ["both-4", pytest.param("sharded-1", marks=pytest.mark.slow)]
)
def test_sharded_parameters_train_as_whole_ones(alone, case):
    name, _, accumulate = case.partition("-")
    state = train_toy(WRAPPED[name], pick_devices(), accumulate=int(accumulate))
    assert largest_error(flat(state), alone) < 1e-5
    kernel = state.params["in"]["kernel"]
    assert not kernel.is_fully_replicated


@pytest.mark.slow
def test_eight_devices_train_as_one(tmp_path, alone):
    launch(tmp_path, 8, QUICK, 1)
    check(tmp_path, QUICK, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "processes"),
    [
        (4, 2),
        pytest.param(4, 1, marks=pytest.mark.nightly),
        pytest.param(8, 1, marks=pytest.mark.nightly),
    ],
)
def test_every_case_trains_as_one_device(tmp_path, alone, devices, processes):
    launch(tmp_path, devices, ALL, processes)
    check(tmp_path, ALL, alone)


def bytes_a_device(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_sharding_divides_the_memory():
    """Parameters, both moments and frozen arrays: a quarter of each on a device."""
    params = {"kernel": np.ones((64, 128), np.float32), "bias": np.ones(128)}
    make = lambda axis: make_train_step(toy.make_system(), "student", optax.adam(1.0))
    whole = shard_map(make).place(params)
    cut = mesh(make, fully_sharded=True).place(params)
    small = 128 * 4
    assert bytes_a_device(whole) == 64 * 128 * 4 + small
    assert bytes_a_device(cut) == 64 * 128 + small
    # A step's results lie as its arguments do, so that nothing moves between steps.
    state = train_toy(WRAPPED["sharded"], pick_devices(), tx=optax.adam(0.1))
    specs = lambda tree: [x.sharding.spec for x in jax.tree.leaves(tree)]
    moments = state.opt_state[0]
    assert specs(moments.mu) == specs(moments.nu) == specs(state.params)
    assert bytes_a_device(state.params["in"]) == 12 * 5 * 4 // 4 + 5 * 4


@pytest.mark.parametrize(
    ("axes", "shape", "spec"),
    [
        (("data",), (8, 4), (("data",),)),
        (("data",), (7, 4), (None, ("data",))),
        (("model", "data"), (8, 16), (None, ("model", "data"))),
        (("model", "data"), (6, 5), (("model",),)),
        (("model", "data"), (3, 5), ()),
        (("data",), (2, 0), ()),
        (("data",), (), ()),
        ((), (8, 8), ()),
    ],
)
def test_the_largest_axis_that_divides_is_cut(axes, shape, spec):
    over = make_mesh(model=2)
    rule = make_rule(over, axes, min_size=1)
    assert rule(shape) == jax.sharding.PartitionSpec(*spec)
    assert make_rule(over, axes, min_size=1000)(shape) == jax.sharding.PartitionSpec()


def test_arrays_come_back_whole():
    over = make_mesh()
    values = {"x": np.arange(8.0, dtype=np.float32), "n": np.float32(2)}
    place = mesh(lambda axis: lambda *x: x, fully_sharded=True, min_size=1).place
    cut = place(values)
    assert not cut["x"].is_fully_replicated
    np.testing.assert_array_equal(fetch(cut)["x"], values["x"])
    assert on_one_device(cut)["x"] is cut["x"]
    whole = jax.device_put(values, jax.NamedSharding(over, jax.P()))
    assert on_one_device(whole)["x"].devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(on_one_device(whole)["x"], values["x"])


def test_what_cannot_be_laid_out_is_named():
    make = lambda axis: make_train_step(toy.make_system(), "student", optax.sgd(1.0))
    assert make_runner("auto", make, fully_sharded=True).num_devices == 4
    assert len(pick_devices(2)) == 2
    with pytest.raises(InputError, match="--devices 8 asks for 8 in process 0"):
        pick_devices(8)
    with pytest.raises(InputError, match="axis of 3 does not divide the 4 devices"):
        make_mesh(model=3)
    with pytest.raises(InputError, match="shard_map keeps parameters whole: use mesh"):
        make_runner("shard_map", make, fully_sharded=True)
