import json
import pickle

import numpy as np
import pytest

from eegkd.data.batches.loader import (
    BatchPlan,
    eval_batches,
    fit_train_zscore,
    make_loader,
)
from eegkd.data.batches.maker import BatchMaker
from eegkd.errors import InputError
from tests.support.stores import toy_store


def add_text(batch):
    """Stands for a system's prepare; at module level, so that workers find it."""
    ids = np.repeat(batch["label"][:, None], 3, axis=1)
    return {**batch, "text_ids": ids, "mean": batch["signal"].mean(axis=(1, 2))}


def ids(loader):
    return [batch["window_id"].tolist() for batch in loader]


def test_a_batch_holds_the_rows_it_names():
    store = toy_store()
    rows = store.rows(["s1", "s3"])
    seen = []
    for batch in make_loader(store, rows, batch_size=16, seed=0, num_epochs=2):
        row = batch["window_id"]
        assert set(batch) == {"signal", "label", "subject", "window_id"}
        np.testing.assert_array_equal(batch["signal"], store.signal[row])
        np.testing.assert_array_equal(batch["label"], store.labels[row])
        np.testing.assert_array_equal(batch["subject"], store.subjects.codes[row])
        assert batch["signal"].dtype == np.float32
        assert {batch[k].dtype for k in ("label", "subject", "window_id")} == {
            np.dtype(np.int32)
        }
        seen.append(row)
    assert len(seen) == 2 * (len(rows) // 16)
    first = np.concatenate(seen[:5])
    assert len(set(first)) == 80
    assert set(first) <= set(rows)
    assert not np.array_equal(first, np.concatenate(seen[5:]))


def test_the_order_is_a_function_of_seed_and_rows():
    store = toy_store()
    rows = store.rows()

    def order(seed, rows=rows, **more):
        return ids(
            make_loader(store, rows, batch_size=32, seed=seed, num_steps=9, **more)
        )

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) == order(0, threads=1)
    cached = BatchPlan(cache={"teacher": {"x": np.zeros(len(store))}})
    assert order(0, plan=cached) == order(0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_shards_cut_one_global_batch(count):
    store = toy_store()

    def order(shard):
        return ids(
            make_loader(
                store, store.rows(), batch_size=32, seed=0, num_steps=8, shard=shard
            )
        )

    parts = zip(*(order((i, count)) for i in range(count)), strict=True)
    assert [sum(part, []) for part in parts] == order((0, 1))


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 7, 13])
def test_resuming_gives_the_batches_that_were_left(stop):
    store = toy_store()

    def loader():
        return make_loader(store, store.rows(), batch_size=32, seed=4, num_steps=14)

    whole = ids(loader())
    begun = loader()
    for _ in range(stop):
        next(begun)
    state = json.loads(json.dumps(begun.get_state()))
    begun.close()
    resumed = loader()
    next(resumed)
    resumed.set_state(state)
    assert ids(resumed) == whole[stop:]
    assert len(resumed) == 14


def test_a_state_of_another_order_is_refused():
    store = toy_store()
    state = make_loader(
        store, store.rows(), batch_size=32, seed=4, num_steps=14
    ).get_state()
    other = make_loader(store, store.rows(), batch_size=32, seed=5, num_steps=14)
    with pytest.raises(InputError, match="data order differs"):
        other.set_state(state)


def test_balanced_draws_classes_equally_and_keeps_the_unlabelled_share():
    store = toy_store()
    rows = store.rows()
    unlabelled = int(np.sum(store.labels == -1))
    loader = make_loader(
        store,
        rows,
        batch_size=200,
        seed=0,
        num_epochs=3,
        plan=BatchPlan(sampler="balanced"),
    )
    drawn = []
    for batch in loader:
        counts = np.bincount(batch["label"] + 1, minlength=4)
        assert counts[0] == unlabelled
        assert counts[1:].sum() == 200 - unlabelled
        assert np.ptp(counts[1:]) <= 1
        rare = batch["window_id"][batch["label"] == 2]
        times = np.unique(rare, return_counts=True)[1]
        assert len(times) == np.sum(store.labels == 2)
        assert np.ptp(times) <= 1
        drawn.append(batch["window_id"].tolist())
    assert drawn[0] != drawn[1]


def test_balanced_draws_each_of_several_labels_equally_and_windows_of_none():
    store, rng = toy_store(), np.random.default_rng(0)
    labels = (rng.random((200, 3)) < (0.6, 0.3, 0.05)).astype(np.float32)
    labels[:20], labels[20:30, 1] = -1, -1
    rows = store.rows()
    plan = BatchPlan(sampler="balanced", labels=labels)
    unknown, none = (labels < 0).all(1), (labels >= 0).any(1) & ~(labels == 1).any(1)
    kept = []
    for seed in (0, 0, 1):
        loader = make_loader(
            store, rows, batch_size=200, seed=seed, num_epochs=2, plan=plan
        )
        drawn = [np.asarray(batch["window_id"]) for batch in loader]
        kept.append(drawn)
        for epoch in drawn:
            assert unknown[epoch].sum() == 20
            # Four classes of 45 draws; a window of two labels is drawn for either.
            assert none[epoch].sum() == 45
            for k in range(3):
                assert (labels[epoch, k] == 1).sum() >= 45
            times = np.unique(epoch[labels[epoch, 2] == 1], return_counts=True)[1]
            assert len(times) == (labels[:, 2] == 1).sum()
    assert all(map(np.array_equal, kept[0], kept[1]))
    assert not np.array_equal(kept[0][0], kept[0][1])
    assert not np.array_equal(kept[0][0], kept[2][0])


def test_prepare_labels_zscore_and_cache_are_delivered():
    store = toy_store()
    rows = store.rows(["s0", "s1"])
    labels = np.arange(len(store), dtype=np.int32) % 3
    tokens = np.arange(len(store) * 2.0).reshape(-1, 2)
    zscore = fit_train_zscore(store, rows)
    loader = make_loader(
        store,
        rows,
        batch_size=8,
        seed=0,
        num_steps=3,
        plan=BatchPlan(
            prepare=add_text,
            labels=labels,
            zscore=zscore,
            cache={"teacher": {"tokens": tokens}},
        ),
    )
    for batch in loader:
        row = batch["window_id"]
        np.testing.assert_array_equal(batch["label"], labels[row])
        np.testing.assert_array_equal(batch["text_ids"], labels[row, None].repeat(3, 1))
        want = (store.signal[row] - zscore.mean[:, None]) / zscore.std[:, None]
        np.testing.assert_allclose(batch["signal"], want, rtol=1e-6)
        np.testing.assert_allclose(batch["mean"], want.mean(axis=(1, 2)), atol=1e-5)
        np.testing.assert_array_equal(batch["cache"]["teacher"]["tokens"], tokens[row])


def test_zscore_is_fitted_on_the_rows_given_and_no_others():
    store = toy_store()
    store.signal[100:] += 1000
    rows = np.arange(100)
    zscore = fit_train_zscore(store, rows, chunk=7)
    x = store.signal[:100].astype(np.float64)
    np.testing.assert_allclose(zscore.mean, x.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(zscore.std, x.std(axis=(0, 2)), rtol=1e-6)
    store.signal[:, 1] = 7
    with pytest.raises(InputError, match="Channel C4 is flat"):
        fit_train_zscore(store, rows)


@pytest.mark.parametrize("num", [1, 31, 32, 33])
def test_evaluation_batches_are_in_order_full_and_say_what_is_padding(num):
    store = toy_store()
    rows = store.rows()[::-1][:num]
    maker = BatchMaker(store=store, plan=BatchPlan(prepare=add_text))
    batches = list(eval_batches(maker, rows, batch_size=16))
    assert {len(batch["signal"]) for batch, _ in batches} == {16}
    kept = np.concatenate([batch["window_id"][valid] for batch, valid in batches])
    np.testing.assert_array_equal(kept, rows)
    assert sum(len(valid) for _, valid in batches) - num < 16


def test_what_cannot_be_batched_is_refused():
    store = toy_store()
    rows = store.rows()
    with pytest.raises(InputError, match="lower the batch size"):
        make_loader(store, rows, batch_size=201, seed=0, num_steps=1)
    with pytest.raises(InputError, match="3 equal shards"):
        make_loader(store, rows, batch_size=32, seed=0, num_steps=1, shard=(0, 3))
    with pytest.raises(ValueError, match="one of them"):
        make_loader(store, rows, batch_size=32, seed=0)


def test_a_worker_maps_files_again_instead_of_copying_them(tmp_path):
    store = toy_store(tmp_path / "store")
    np.save(tmp_path / "tokens.npy", np.arange(200 * 500.0).reshape(200, 500))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    cache = {"teacher": {"bits": tokens.view(np.uint64), "part": tokens[:, 3:5]}}
    loader = make_loader(
        store,
        store.rows(),
        batch_size=8,
        seed=0,
        num_steps=2,
        plan=BatchPlan(cache=cache),
    )
    data = pickle.dumps(loader._source)
    assert len(data) < 12_000
    copy = pickle.loads(data)
    assert isinstance(copy.maker.plan.cache["teacher"]["bits"], np.memmap)
    for name in ("bits", "part"):
        want = loader._source[1]["cache"]["teacher"][name]
        np.testing.assert_array_equal(copy[1]["cache"]["teacher"][name], want)


@pytest.mark.slow
def test_two_worker_processes_give_the_same_batches(tmp_path):
    store = toy_store(tmp_path / "store")

    def loader(workers):
        return make_loader(
            store, store.rows(), batch_size=32, seed=0, num_steps=9,
            workers=workers, plan=BatchPlan(prepare=add_text),
        )  # fmt: skip

    want = ids(loader(0))
    begun = loader(2)
    assert [next(begun)["window_id"].tolist() for _ in range(4)] == want[:4]
    state = begun.get_state()
    begun.close()
    resumed = loader(2)
    resumed.set_state(state)
    assert ids(resumed) == want[4:]
