"""Batches of whole recordings."""

import pickle

import numpy as np
import pytest

from eegkd.data.batches.augment import AugmentConfig
from eegkd.data.batches.loader import make_loader
from eegkd.data.batches.maker import BatchMaker, BatchPlan
from eegkd.data.batches.recordings import recording_maker, whole_recordings
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError

LENGTHS = {"long": 5, "short": 2, "middle": 3}


def store_of(**index):
    """Windows of three recordings, out of order in time."""
    names = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    num = len(names)
    signal = np.arange(num * 4, dtype=np.float32).reshape(num, 1, 4)
    whole = {
        "recording_id": names,
        "subject": names,
        "start_s": np.concatenate([np.arange(n)[::-1] for n in LENGTHS.values()]),
        "label": np.arange(num) % 2,
        "window_id": 10 + np.arange(num),
    } | index
    manifest = {"corpus": "toy", "classes": ["a", "b"], "channels": ["C3"],
                "rate": 4.0, "window_s": 1.0}  # fmt: skip
    return WindowStore.from_arrays(None, signal, whole, manifest)


def double(batch):
    return {**batch, "own": {"twice": 2 * batch["signal"]}}


def test_a_batch_is_recordings_in_time_order_with_a_mask():
    store = store_of()
    cache = {"tower": {"embed": np.arange(len(store) * 3.0).reshape(-1, 3)}}
    maker = BatchMaker(store=store, plan=BatchPlan(prepare=double, cache=cache))
    whole = recording_maker(maker, np.arange(len(store)))
    assert (len(whole.recordings), whole.length) == (3, 5)
    assert whole.labels.shape == (3,)
    batch = pickle.loads(pickle.dumps(whole))(np.array([1, 0]))
    np.testing.assert_array_equal(batch["mask"].sum(axis=1), [2, 5])
    np.testing.assert_array_equal(batch["window_id"][0], [16, 15, 15, 15, 15])
    np.testing.assert_array_equal(batch["label"][0], [0, 1, -1, -1, -1])
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["window_id"][1], [14, 13, 12, 11, 10])
    assert batch["signal"].shape == (2, 5, 1, 4)
    np.testing.assert_array_equal(batch["own"]["twice"], 2 * batch["signal"])
    rows = batch["window_id"] - 10
    np.testing.assert_array_equal(
        batch["cache"]["tower"]["embed"], cache["tower"]["embed"][rows]
    )


def test_one_length_serves_several_sets():
    store = store_of()
    rows = np.flatnonzero(store.index["recording_id"] == "short")
    maker = BatchMaker(store=store)
    assert recording_maker(maker, rows).length == 2
    everything = np.arange(len(store))
    assert recording_maker(maker, rows, longest=everything).length == 5


def test_padding_hides_every_label_of_several():
    label = np.ones((10, 2), np.float32)
    batch = recording_maker(BatchMaker(store=store_of(label=label)), np.arange(10))(
        np.array([1])
    )
    assert batch["label"].shape == (1, 5, 2)
    assert np.all(batch["label"][0, :2] == 1)
    assert np.all(batch["label"][0, 2:] == -1)


def test_windows_that_overlap_are_refused():
    store = store_of(on_grid=np.arange(10) % 2 == 0)
    with pytest.raises(InputError, match=r"whole recordings, .*--data.overlap 0"):
        whole_recordings(store, np.arange(10))


def test_a_loader_draws_recordings_and_leaves_them_as_they_are():
    store = store_of()
    plan = BatchPlan(
        sampler="balanced", augment=AugmentConfig(noise=1.0), recordings=True
    )
    rows = np.arange(len(store))
    loader = make_loader(store, rows, batch_size=2, seed=0, num_epochs=2, plan=plan)
    assert len(loader) == 2
    for batch in loader:
        assert batch["mask"].shape == (2, 5)
        wanted = store.signal[batch["window_id"] - 10]
        np.testing.assert_array_equal(batch["signal"], wanted)
    with pytest.raises(InputError, match="Batch size 4"):
        make_loader(store, rows, batch_size=4, seed=0, num_epochs=1, plan=plan)
