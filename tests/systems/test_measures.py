"""Numbers of each window, measured once per store and handed on in batches."""

import pickle

import numpy as np
import pytest

from eegkd.data.batches.maker import BatchMaker
from eegkd.errors import InputError
from eegkd.systems.batches import example_batch
from eegkd.systems.measures import with_measures
from eegkd.systems.signal import signal_of
from tests.support import toy
from tests.support.stores import tiny_store


def spread_and_place(signal, config):
    """Two numbers: a window's spread, and its place in the recording."""
    assert config.rate
    place = np.arange(len(signal), dtype=np.float32)
    return np.stack([signal.std(axis=(1, 2)), place], axis=1)


def test_each_window_has_its_numbers_and_batches_hold_them(tmp_path):
    store, calls = tiny_store(), []

    def measure(signal, config):
        calls.append(len(signal))
        return spread_and_place(signal, config)

    system = toy.make_system()._replace(measure=measure)
    file, signal = tmp_path / "measures.npz", signal_of(store)
    found = with_measures(system, store, signal, file)
    assert len(calls) == len(set(store.index["recording_id"]))
    np.testing.assert_allclose(
        found.measures[:, 0], store.signal.std(axis=(1, 2)), rtol=1e-5
    )
    for recording in set(store.index["recording_id"]):
        rows = store.recording_rows(recording)
        np.testing.assert_array_equal(found.measures[rows, 1], np.arange(len(rows)))
    rows = np.array([5, 0, 3])
    batch = BatchMaker(store=pickle.loads(pickle.dumps(found)))(rows)
    np.testing.assert_array_equal(batch["measures"], found.measures[rows])
    example = example_batch(system, signal, 3)
    assert example["measures"].shape == batch["measures"].shape
    assert example["measures"].dtype == batch["measures"].dtype
    # Kept numbers are read again, of this store alone.
    calls.clear()
    again = with_measures(system, store, signal, file)
    np.testing.assert_array_equal(again.measures, found.measures)
    assert not calls
    with_measures(system, tiny_store(gain=2.0), signal, file)
    assert calls


def test_without_a_measure_nothing_is_added():
    store = tiny_store()
    assert with_measures(toy.make_system(), store, signal_of(store)) is store


@pytest.mark.parametrize("wrong", [lambda x: x[:1], lambda x: x * np.nan])
def test_numbers_that_are_none_are_refused(wrong):
    store = tiny_store()
    measure = lambda signal, config: wrong(spread_and_place(signal, config))
    system = toy.make_system()._replace(measure=measure)
    with pytest.raises(InputError, match="one row of finite numbers per window"):
        with_measures(system, store, signal_of(store))
