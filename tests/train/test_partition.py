import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from eegkd.train.partition import (
    bytes_a_device,
    locate,
    mesh_axes,
    partition_rule,
    places,
    shardings,
)
from eegkd.train.sharding import make_mesh
from tests.support import language_runs
from tests.support.processes import launch
from tests.support.toy_runners import largest_error

D, M = "data", "model"
MESH = AbstractMesh((4, 2), (D, M))
SCHEMES = {
    "data": (),
    "fully": (D,),
    "tensor": (M,),
    "both": (M, D),
}


@pytest.mark.parametrize(
    ("path", "shape", "wanted"),
    [
        # What the axes become: fully sharded, tensor-parallel, and both.
        ("layers/query/kernel", (3, 8, 16), ((None, D), (None, None, M), (None, D, M))),
        ("layers/gate/kernel", (3, 8, 16), ((None, D), (None, None, M), (None, D, M))),
        ("layers/key/bias", (3, 16), ((None, D), (None, M), (None, (M, D)))),
        ("layers/out/bias", (3, 16), ((None, D), (), (None, D))),
        (
            "layers/out/kernel",
            (3, 8, 16),
            ((None, None, D), (None, M), (None, M, D)),
        ),
        ("layers/down/lora_down", (3, 8, 4), ((None, D), (None, M), (None, (M, D)))),
        ("layers/down/lora_up", (3, 4, 8), ((None, None, D), (None,), (None, None, D))),
        (
            "layers/up/lora_up",
            (3, 4, 8),
            ((None,) * 2 + (D,), (None,) * 2 + (M,), None),
        ),
        ("layers/norm1/scale", (8, 16), ((), (), ())),
        ("layers/input_norm/scale", (8, 16), ((), (), ())),
        ("embed/embedding", (32, 16), ((None, D), (M,), (M, D))),
        ("lm_head/kernel", (16, 32), ((D,), (None, M), (D, M))),
        ("projector/linear_1/kernel", (8, 16), ((D,), (None, M), (D, M))),
    ],
)
@pytest.mark.parametrize("before", ["", "params/language/", "opt_state/0/mu/"])
def test_the_table_cuts_by_path(path, shape, wanted, before):
    for name, spec in zip(("fully", "tensor", "both"), wanted, strict=True):
        spec = (None, None, (M, D)) if spec is None else spec
        found = locate(MESH, SCHEMES[name], min_size=1)(before + path, shape)
        assert found.reason == "table"
        assert trimmed(found.spec) == trimmed(spec), name
    whole = locate(MESH, (), min_size=1)(before + path, shape)
    assert whole.spec == PartitionSpec()


def trimmed(spec):
    """Entries up to the last that cuts; an axis alone is no tuple."""
    entries = [x[0] if isinstance(x, tuple) and len(x) == 1 else x for x in spec]
    while entries and entries[-1] is None:
        entries.pop()
    return tuple(entries)


@pytest.mark.parametrize(
    ("path", "shape", "axes", "spec", "reason"),
    [
        ("head/kernel", (8, 16), (D,), (None, D), "unknown path"),
        # The stack is never cut, even where nothing else divides.
        ("layers/other/kernel", (16, 8, 3), (D,), (None, D), "unknown path"),
        ("layers/other/kernel", (16, 3, 3), (D,), (), "unknown path"),
        ("layers/query/kernel", (16, 6, 8), (D,), (None, None, D), "6 is no multiple"),
        ("layers/query/kernel", (16, 6, 5), (D,), (), "6 is no multiple of 4"),
        ("embed/embedding", (7, 8), (M, D), (None, (M, D)), "7 is no multiple of 2"),
        # Too few axes for the table's line.
        ("layers/query/kernel", (16,), (D,), (), "unknown path"),
    ],
)
def test_what_the_table_does_not_decide_goes_by_shape(path, shape, axes, spec, reason):
    found = locate(MESH, axes, min_size=1)(path, shape)
    assert found.reason.startswith(reason)
    assert trimmed(found.spec) == spec


def test_small_arrays_stay_whole():
    place = locate(MESH, (D,), min_size=1000)
    assert place("layers/query/kernel", (2, 8, 16)) == (PartitionSpec(), "small")


def test_bytes_of_a_device_are_those_of_its_shards():
    over, axes = make_mesh(model=2), (M, D)
    tree = {
        "layers": {
            "query": {"kernel": np.ones((2, 8, 16), np.float32)},
            "down": {"lora_up": np.ones((2, 3, 8), np.float32)},
            "norm": {"scale": np.ones((2, 8), np.float32)},
        },
        "head": {"kernel": jnp.ones((5, 12), jnp.bfloat16)},
        "key": jax.random.key(0),
    }
    place = locate(over, axes, min_size=1)
    put = shardings(over, partition_rule(over, axes, min_size=1))
    wanted = 0
    for path, leaf, found in places(tree, place):
        sharding = put(tuple(path.split("/")), leaf.shape)
        assert sharding == NamedSharding(over, found.spec)
        shard = sharding.shard_shape(leaf.shape)
        wanted += int(np.prod(shard)) * leaf.dtype.itemsize
    assert bytes_a_device(tree, over, place) == wanted
    assert wanted == (256 // 4 + 48 // 2 + 16) * 4 + 60 // 4 * 2


def test_axes_are_those_of_the_options():
    assert mesh_axes(model=1, fully_sharded=False) == ()
    assert mesh_axes(model=1, fully_sharded=True) == (D,)
    assert mesh_axes(model=2, fully_sharded=False) == (M,)
    assert mesh_axes(model=2, fully_sharded=True) == (M, D)


@pytest.mark.slow
def test_a_decoder_cut_both_ways_trains_as_on_one_device():
    state, frozen, losses = language_runs.train(language_runs.HOW["both"], "lora")
    language_runs.check_layout(state, frozen, "both")
    got, want = language_runs.flat(state, frozen, losses), language_runs.alone("lora")
    assert largest_error(got, want) < 1e-5
    # Training moves far enough for an error to show.
    assert abs(want["losses"][-1] / want["losses"][0] - 1) > 1e-3


@pytest.mark.slow
def test_eight_devices_train_a_decoder_as_one(tmp_path):
    cases = ["data-lora", "fully-lora", "tensor-whole", "both-whole"]
    launch(tmp_path, 8, cases, 1, module="tests.support.language_runs")
    wanted = {what: language_runs.alone(what) for what in ("lora", "whole")}
    check = lambda got, what: largest_error(dict(got), wanted[what])
    errors = {}
    for case in cases:
        with np.load(tmp_path / f"{case}.npz") as got:
            errors[case] = check(got, case.partition("-")[2])
    assert max(errors.values()) < 1e-5, errors
