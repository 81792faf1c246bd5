import dataclasses
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.cache.files import difference, measure_speed
from eegkd.cache.fill import (
    check_room,
    describe_plan,
    fill_cache,
    free_bytes,
    make_plan,
)
from eegkd.cache.read import TeacherTensor, match_windows, open_cache
from eegkd.data.batches.loader import BatchPlan, make_loader
from eegkd.errors import InputError, Interrupted
from tests.support.cache_toy import (
    ROOT,
    SLOW,
    contents,
    fill,
    forms,
    ids_of,
    outputs,
    producer,
    read_all,
)
from tests.support.processes import running
from tests.support.stores import toy_store


@given(
    num=st.integers(1, 40),
    num_views=st.integers(1, 3),
    shard_rows=st.integers(1, 130),
    picks=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 5)), min_size=1),
)
@settings(max_examples=25, deadline=None)
def test_any_rows_of_any_shards_are_gathered(
    tmp_path_factory, num, num_views, shard_rows, picks
):
    folder = tmp_path_factory.mktemp("cache") / "c"
    cache, values = fill(folder, num, num_views=num_views, shard_rows=shard_rows)
    tensor = cache.tensors(toy_store().index["window_id"])["teacher"]["tokens"]
    tensor = dataclasses.replace(tensor, index=np.arange(num))
    rows = np.array([place % num for place, _ in picks])
    views = np.array([view for _, view in picks])
    want = values["teacher.tokens"][rows, views % num_views]
    np.testing.assert_array_equal(tensor.gather(rows, views), want)
    shards = list((folder / "teacher.tokens").iterdir())
    assert len(shards) == -(-num * num_views // shard_rows)
    assert open_cache(folder).bytes == sum(
        len(data) for name, data in contents(folder).items() if name != "manifest.json"
    )


def test_windows_are_matched_by_id_in_any_order():
    cached = np.array([2, 5, 9])
    found = match_windows(np.array([9, 1, 5, 10, 2]), cached)
    np.testing.assert_array_equal(found, [2, -1, 1, -1, 0])


def test_a_row_that_is_not_there_is_an_error():
    tensor = TeacherTensor(np.zeros((2, 3)), np.array([0, -1, 1]))
    tensor.gather(np.array([0, 2]))
    with pytest.raises(ValueError, match="Store row 1 "):
        tensor.gather(np.array([0, 1]))


def test_rows_can_be_moved_and_averaged(tmp_path):
    values = outputs(200, 2)
    plan = make_plan({}, np.arange(200), forms(), num_views=2, shard_rows=64)
    store = toy_store()
    cache = fill_cache(tmp_path / "c", plan, producer(values))
    tensor = cache.tensors(store.index["window_id"])["teacher"]["logits"]
    x = values["teacher.logits"]
    order = np.random.default_rng(0).permutation(200)
    rows = np.arange(0, 200, 7)
    np.testing.assert_array_equal(
        tensor.moved(order).gather(rows, 1), x[order[rows], 1]
    )
    some = np.arange(0, 150)
    means = tensor.class_means(some, store.labels)
    for label in np.unique(store.labels[some]):
        mine = some[store.labels[some] == label]
        want = x[mine].mean(axis=(0, 1), dtype=np.float64)
        np.testing.assert_allclose(
            means.gather(mine, 1), np.tile(want, (len(mine), 1)), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(ValueError, match="Store row 150"):
        means.gather(np.array([150]))


def test_a_worker_gets_file_names_and_reads_the_same(tmp_path):
    store = toy_store(tmp_path / "store")
    plan = make_plan(
        {}, np.arange(200), forms(numbers="bfloat16"), num_views=2, shard_rows=64
    )
    values = outputs(200, 2)
    whole = fill_cache(tmp_path / "c", plan, producer(values))
    cache = whole.tensors(store.index["window_id"])
    loader = make_loader(
        store,
        store.rows(),
        batch_size=20,
        seed=0,
        num_steps=12,
        plan=BatchPlan(cache=cache),
    )
    data = pickle.dumps(loader._source)
    assert len(data) < 20_000
    want, got = loader._source[11], pickle.loads(data)[11]
    row = want["window_id"]
    x = values["teacher.tokens"]
    # No augmentation: every epoch shows view 0.
    np.testing.assert_allclose(want["cache"]["teacher"]["tokens"], x[row, 0], rtol=4e-3)
    for name in ("tokens", "logits"):
        np.testing.assert_array_equal(
            got["cache"]["teacher"][name], want["cache"]["teacher"][name]
        )


@pytest.mark.slow
def test_worker_processes_read_the_cache(tmp_path):
    store = toy_store(tmp_path / "store")
    plan = make_plan({}, np.arange(200), forms(rank=4), shard_rows=64)
    whole = fill_cache(tmp_path / "c", plan, producer(outputs(200)))
    cache = whole.tensors(store.index["window_id"])

    def batches(workers):
        loader = make_loader(
            store, store.rows(), batch_size=20, seed=0, num_steps=4,
            plan=BatchPlan(cache=cache), workers=workers,
        )  # fmt: skip
        return [batch["cache"]["teacher"]["tokens"] for batch in loader]

    for a, b in zip(batches(0), batches(2), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stopped_fill_goes_on_to_the_same_bytes(tmp_path):
    options = {"num": 100, "num_views": 2, "shard_rows": 16, "rank": 3}
    fill(tmp_path / "whole", **options)
    asked, seen = iter(range(100)), []
    with pytest.raises(Interrupted, match="row 96 of 200 .*Run the same command again"):
        fill(tmp_path / "cut", stop=lambda: next(asked) == 5, **options)
    with pytest.raises(InputError, match="half filled: run the command"):
        open_cache(tmp_path / "cut")
    values = outputs(100, 2)

    def produce(places, views):
        seen.append(places)
        return producer(values)(places, views)

    fill(tmp_path / "cut", produce=produce, **options)
    assert np.concatenate(seen).min() == 48
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_whole_cache_is_opened_without_the_teacher(tmp_path):
    _, values = fill(tmp_path / "c")
    cache, _ = fill(tmp_path / "c", produce=None, values=values)
    assert cache.read_speed > 0
    np.testing.assert_array_equal(
        read_all(cache)["tokens"], values["teacher.tokens"][:, 0]
    )


def damage(folder, how):
    file = folder / "teacher.tokens" / "00001.npy"
    if how == "deleted":
        file.unlink()
    elif how == "cut":
        os.truncate(file, file.stat().st_size - 1)
    else:
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "said"),
    [("deleted", "is missing"), ("cut", "bytes, not"), ("altered", "was altered")],
)
def test_a_damaged_shard_is_named_and_made_again_or_refused(
    tmp_path, caplog, how, said
):
    folder = tmp_path / "c"
    fill(folder, shard_rows=16)
    good = contents(folder)
    damage(folder, how)
    named = f"teacher.tokens/00001.npy {said}|00001.npy has .* {said}"
    with pytest.raises(InputError, match=named):
        open_cache(folder)
    with pytest.raises(InputError, match=named):
        fill(folder, shard_rows=16, refill=False)
    calls = []

    def produce(places, views):
        calls.append(places)
        return producer(outputs(50))(places, views)

    with caplog.at_level(logging.WARNING):
        fill(folder, shard_rows=16, produce=produce)
    assert "00001.npy" in caplog.text
    assert "filling again" in caplog.text
    np.testing.assert_array_equal(np.concatenate(calls), np.arange(16, 32))
    assert contents(folder) == good


def test_sizes_alone_see_a_cut_but_not_a_flipped_bit(tmp_path):
    folder = tmp_path / "c"
    fill(folder, shard_rows=16)
    damage(folder, "altered")
    assert open_cache(folder, verify="size").read_speed == 0
    damage(folder, "cut")
    with pytest.raises(InputError, match="00001.npy"):
        open_cache(folder, verify="size")


def test_damaged_axes_start_the_cache_anew(tmp_path, caplog):
    folder = tmp_path / "c"
    fill(folder, rank=3)
    good = contents(folder)
    (folder / "teacher.tokens.basis.npz").unlink()
    with caplog.at_level(logging.WARNING):
        fill(folder, rank=3)
    assert "anew as a whole" in caplog.text
    assert contents(folder) == good


@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_shard_lost_in_use_is_an_error_and_not_a_crash(tmp_path, how):
    folder = tmp_path / "c"
    cache, _ = fill(folder, shard_rows=16)
    tensor = cache.tensors(toy_store().index["window_id"])["teacher"]["tokens"]
    tensor = dataclasses.replace(tensor, index=np.arange(50))
    tensor.gather(np.arange(50))
    damage(folder, how)
    if how == "cut":
        os.truncate(folder / "teacher.tokens" / "00001.npy", 100)
    with pytest.raises(InputError, match="00001.npy was (deleted|cut)"):
        tensor.gather(np.arange(50))


def test_an_altered_manifest_is_refused(tmp_path):
    fill(tmp_path / "c")
    file = tmp_path / "c" / "manifest.json"
    file.write_text(file.read_text().replace('"abc"', '"abd"'))
    with pytest.raises(InputError, match="manifest.json was altered"):
        open_cache(tmp_path / "c")
    with pytest.raises(InputError, match="manifest.json was altered"):
        fill(tmp_path / "c")
    file.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        fill(tmp_path / "c")
    with pytest.raises(InputError, match="no teacher cache"):
        open_cache(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"fields": {"teacher": "xyz", "system": {"name": "toy"}}}, "`teacher` is abc"),
        (
            {"fields": {"teacher": "abc", "system": {"name": "bar"}}},
            "`system.name` is toy there and bar here",
        ),
        ({"numbers": "int8"}, "`form.teacher.tokens.numbers`"),
        ({"num_views": 2}, "`num_views` is 1 there and 2 here"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_field(tmp_path, change, field):
    fill(tmp_path / "c")
    before = contents(tmp_path / "c")
    with pytest.raises(InputError, match=field) as error:
        fill(tmp_path / "c", **change)
    assert "Delete it to fill it anew" in str(error.value)
    assert contents(tmp_path / "c") == before


def test_a_difference_names_what_is_absent():
    assert difference({"a": {"b": 1}}, {"a": {}}) == (
        "`a.b` is 1 there and absent here"
    )
    assert difference({"a": [1]}, {"a": [1]}) is None


def test_what_is_too_large_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="more than --cache.limit_gb 1e-06"):
        fill(tmp_path / "c", limit_gb=1e-6)
    assert not contents(tmp_path / "c")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0)
    )
    with pytest.raises(InputError, match=r"and 0 B are free.*cache.folder"):
        fill(tmp_path / "c")


def test_size_and_speed_are_said_before(tmp_path):
    folder = tmp_path / "not" / "yet"
    assert free_bytes(folder) > 0
    speed = measure_speed(folder)
    assert min(speed) > 1e6
    assert not list(folder.iterdir())
    plan = make_plan({}, ids_of(50), forms(numbers="int8", pool=2), num_views=4)
    said = describe_plan(plan, speed, 3 << 30)
    # 3 floats; 3 vectors of 8 numbers and a scale; 4 views.
    assert f"{4 * (12 + 3 * 12)} B a window of 4 views, 50 windows: 9.4 KiB" in said
    assert "3.0 GiB free" in said
    assert check_room(tmp_path, 0, total=5, limit_gb=1) > 0


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "teacher.logits is NaN or infinite for window_id 26"), (np.inf, "26")],
)
def test_an_output_that_is_not_finite_is_refused(tmp_path, value, message):
    values = outputs(50)
    values["teacher.logits"][7, 0, 1] = value
    with pytest.raises(InputError, match=message):
        fill(tmp_path / "c", values=values)


def test_an_output_of_another_shape_is_refused(tmp_path):
    values = outputs(50)
    values["teacher.tokens"] = values["teacher.tokens"][..., :-1]
    with pytest.raises(InputError, match=r"teacher.tokens has shape \[6, 7\]"):
        fill(tmp_path / "c", values=values)


def test_window_ids_must_ascend():
    with pytest.raises(ValueError, match="ascending"):
        make_plan({}, np.array([3, 3]), forms())


@pytest.mark.slow
def test_killed_fills_end_with_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fill(whole, **SLOW)
    command = [sys.executable, "-m", "tests.support.cache_toy", str(killed)]
    for kill in range(6):
        with running(command, cwd=ROOT) as process:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if len(list(killed.glob("teacher.tokens/*.npy"))) > 25 * (kill + 1):
                    break
                time.sleep(0.002)
            assert process.poll() is None, "the fill ended before it was killed"
        assert not json.loads((killed / "manifest.json").read_text())["complete"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert contents(killed) == contents(whole)
