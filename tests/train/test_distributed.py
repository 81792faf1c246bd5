import numpy as np
import pytest

from eegkd.errors import InputError, Interrupted
from eegkd.train.distributed import Votes, connect, first_only, in_turn, of_first, shard
from tests.support.processes import launch
from tests.support.toy_resuming import NUM_STEPS, STOP_AT, run
from tests.support.toy_runners import largest_error


def check_resumed(folder, runner, optimiser, processes):
    with np.load(folder / f"{optimiser}.npz") as found:
        want = dict(found)
    want_ids = want.pop("ids")
    got, ids, history = run(runner, optimiser, folder / optimiser)
    # With several processes a wish takes two steps to be everyone's.
    at = STOP_AT if processes == 1 else STOP_AT + 2
    assert history.resumed_from == at
    assert len(ids) == NUM_STEPS - at
    # The first process has the first part of every batch.
    np.testing.assert_array_equal(ids[:, : want_ids.shape[1]], want_ids[at:])
    assert largest_error(got, want) < 1e-5


@pytest.mark.slow
def test_eight_devices_then_four_give_the_same_numbers(tmp_path):
    """The same windows in the same order, and the same parameters."""
    module, names = "tests.support.toy_resuming", ("sgd", "adamw")
    launch(tmp_path, 8, names, 1, module=module, between=["shard_map"])
    for optimiser in names:
        check_resumed(tmp_path, "shard_map", optimiser, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sharded", "shard_map"),
        pytest.param("shard_map", "mesh", marks=pytest.mark.nightly),
        pytest.param("pmap", "shard_map", marks=pytest.mark.nightly),
        pytest.param("sharded", "pmap", marks=pytest.mark.nightly),
    ],
)
def test_two_processes_then_one_give_the_same_numbers(tmp_path, before, after):
    """Whatever the runner: a checkpoint holds whole arrays."""
    module, names = "tests.support.toy_resuming", ("sgd", "adamw")
    launch(tmp_path, 4, names, 2, module=module, between=[before])
    for optimiser in names:
        check_resumed(tmp_path, after, optimiser, 2)


def test_alone_everything_is_decided_at_once():
    votes = Votes()
    assert votes(True, False) == (True, False)
    assert of_first({"a": 1.5}) == {"a": 1.5}
    assert in_turn(lambda: 3) == 3
    assert shard() == (0, 1)
    with pytest.raises(Interrupted, match="now"):
        first_only(lambda: (_ for _ in ()).throw(Interrupted("now")))


def test_bad_addresses_are_named():
    with pytest.raises(InputError, match="needs --process_id"):
        connect(2, "localhost:1")
    with pytest.raises(InputError, match="--process_id 2 of 2 processes"):
        connect(2, "localhost:1", 2)
