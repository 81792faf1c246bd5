import dataclasses
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eegkd.data.cache import TeacherTensor, match_windows, open_cache
from eegkd.data.cache_files import difference, measure_speed
from eegkd.data.cache_fill import (
    check_room,
    describe_plan,
    fill_cache,
    free_bytes,
    make_plan,
)
from eegkd.data.cache_forms import (
    TensorForm,
    choose_form,
    decode,
    encode,
    fit_basis,
    from_bfloat16,
    to_bfloat16,
)
from eegkd.data.loader import make_loader
from eegkd.errors import InputError, Interrupted
from tests.data.test_loader import toy_store

ROOT = Path(__file__).parents[2]
LOGITS, TOKENS = (3,), (6, 8)


def forms(**options):
    return {
        "teacher.logits": TensorForm(LOGITS, "float32"),
        "teacher.tokens": TensorForm(TOKENS, "float32", **options),
    }


def outputs(num, num_views=1, seed=0):
    """Outputs [m, views, ...] with a few strong directions, as a network's."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(TOKENS[1], TOKENS[1])) * 0.6 ** np.arange(TOKENS[1])
    tokens = rng.normal(size=(num, num_views, *TOKENS)) @ mix.T + 0.5
    return {
        "teacher.logits": rng.normal(size=(num, num_views, *LOGITS)).astype("f4"),
        "teacher.tokens": tokens.astype("f4"),
    }


def producer(values):
    def produce(places, views):
        return {name: array[places, views] for name, array in values.items()}

    return produce


def ids_of(num):
    return np.arange(num) * 3 + 5


def fill(folder, num=50, *, num_views=1, shard_rows=None, values=None, **options):
    values = outputs(num, num_views) if values is None else values
    kept = {k: options.pop(k) for k in ("numbers", "pool", "rank") if k in options}
    fields = options.pop("fields", {"teacher": "abc", "system": {"name": "toy"}})
    plan = make_plan(
        fields, ids_of(num), forms(**kept), num_views=num_views, shard_rows=shard_rows
    )
    produce = options.pop("produce", producer(values))
    return fill_cache(folder, plan, produce, **options), values


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


# --- forms -----------------------------------------------------------------------


def oracle(x, numbers):
    """Stores and reads one array, written plainly in float64."""
    x = np.asarray(x, np.float64)
    if numbers == "float32":
        return x
    if numbers == "int8":
        out = np.empty_like(x)
        for i in np.ndindex(x.shape[:-1]):
            scale = np.abs(x[i]).max() / 127
            out[i] = np.round(x[i] / scale) * scale if scale else 0
        return out
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


@pytest.mark.parametrize("numbers", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("pool", [1, 3])
def test_a_form_reads_back_what_the_oracle_says(tmp_path, numbers, pool):
    cache, values = fill(tmp_path / "c", numbers=numbers, pool=pool, shard_rows=16)
    x = values["teacher.tokens"][:, 0].astype(np.float64)
    kept = x.reshape(50, 6 // pool, pool, 8).mean(axis=2)
    got = read_all(cache)["tokens"]
    np.testing.assert_allclose(got, oracle(kept, numbers), rtol=2e-6, atol=2e-6)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(
        read_all(cache)["logits"], values["teacher.logits"][:, 0]
    )
    stated = cache.errors["teacher.tokens"]
    for name, want in (
        ("relative_rms", x),
        ("relative_rms_after_pooling", kept),
    ):
        read = np.repeat(got, pool, axis=1) if want is x else got
        error = np.sqrt(np.mean((read - want) ** 2) / np.mean(want**2))
        np.testing.assert_allclose(stated[name], error, rtol=1e-3, atol=1e-7)
    limit = {"float32": 1e-7, "bfloat16": 2e-3, "int8": 5e-3}[numbers]
    assert stated["relative_rms_after_pooling"] < limit
    assert cache.errors["teacher.logits"]["relative_rms"] == 0


def test_a_low_rank_is_the_best_there_is_and_its_error_is_of_other_rows(tmp_path):
    cache, values = fill(tmp_path / "c", num=400, rank=4)
    x = values["teacher.tokens"][:, 0]
    got = read_all(cache)["tokens"]
    assert got.shape == x.shape
    flat = x[::2].reshape(-1, 8).astype(np.float64)
    mean = flat.mean(axis=0)
    _, _, vt = np.linalg.svd(flat - mean, full_matrices=False)
    want = (x - mean) @ vt[:4].T @ vt[:4] + mean
    np.testing.assert_allclose(got, want, atol=1e-4)
    judged = slice(1, None, 2)
    error = np.sqrt(np.mean((got - x)[judged] ** 2) / np.mean(x[judged] ** 2))
    stated = cache.errors["teacher.tokens"]["relative_rms"]
    np.testing.assert_allclose(stated, error, rtol=1e-4)
    assert 0.01 < stated < 0.3


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False).filter(
            lambda x: abs(x) < 3e38
        ),
        min_size=1,
    )
)
def test_bfloat16_rounds_as_jax_does(values):
    import jax.numpy as jnp

    x = np.array(values, np.float32)
    got = from_bfloat16(to_bfloat16(x))
    np.testing.assert_array_equal(got, np.asarray(jnp.asarray(x, jnp.bfloat16), "f4"))


def test_int8_of_zeros_is_zero():
    form = TensorForm((4, 2), "float32", "int8")
    parts = encode(np.zeros((3, 4, 2)), form)
    assert parts[""].dtype == np.int8
    np.testing.assert_array_equal(decode(parts, form), 0)


def test_a_basis_of_full_rank_loses_nothing():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    form = TensorForm((5,), "float32", rank=5)
    basis = fit_basis(x, 5)
    np.testing.assert_allclose(
        decode(encode(x, form, basis), form, basis), x, atol=1e-5
    )


def test_only_tokens_are_stored_inexactly_unless_named():
    options = {"numbers": "int8", "pool": 2, "rank": 4}
    logits = choose_form("t.logits", (3,), "float32", asked=(), **options)
    assert logits == TensorForm((3,), "float32")
    tokens = choose_form("t.tokens", (6, 8), "float32", asked=(), **options)
    assert tokens == TensorForm((6, 8), "float32", "int8", 2, 4)
    assert tokens.read_shape == (3, 8)
    assert tokens.bytes == 3 * (4 + 4)
    named = choose_form(
        "t.logits", (3,), "float32", numbers="int8", pool=1, rank=0,
        asked=("t.logits",),
    )  # fmt: skip
    assert named.numbers == "int8"
    left = choose_form("t.tokens", (6, 8), "float32", asked=("t.logits",), **options)
    assert left.numbers == "float32"
    mask = choose_form("t.mask", (6, 8), "bool", asked=(), **options)
    assert mask.bytes == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 4}, "t.tokens has 6 tokens"),
        ({"rank": 8}, r"t.tokens has shape \[6, 8\]"),
    ],
)
def test_a_form_that_does_not_fit_is_refused(options, message):
    whole = {"numbers": "float32", "pool": 1, "rank": 0} | options
    with pytest.raises(InputError, match=message):
        choose_form("t.tokens", (6, 8), "float32", asked=(), **whole)


# --- shards and views -------------------------------------------------------------


def read_all(cache, view=0):
    """Reads every window, through a store whose windows are the cache's."""
    num = len(cache.window_ids)
    index = np.arange(num)
    return {
        name: dataclasses.replace(tensor, index=index).gather(index, view)
        for name, tensor in cache.tensors(toy_store())["teacher"].items()
    }


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
    tensor = cache.tensors(toy_store())["teacher"]["tokens"]
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
    tensor = cache.tensors(store)["teacher"]["logits"]
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
    cache = fill_cache(tmp_path / "c", plan, producer(values)).tensors(store)
    loader = make_loader(
        store, store.rows(), batch_size=20, seed=0, num_steps=12, cache=cache
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
    cache = fill_cache(tmp_path / "c", plan, producer(outputs(200))).tensors(store)

    def batches(workers):
        loader = make_loader(
            store, store.rows(), batch_size=20, seed=0, num_steps=4, cache=cache,
            workers=workers,
        )  # fmt: skip
        return [batch["cache"]["teacher"]["tokens"] for batch in loader]

    for a, b in zip(batches(0), batches(2), strict=True):
        np.testing.assert_array_equal(a, b)


# --- filling, resuming, refusing ---------------------------------------------------


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
    tensor = cache.tensors(toy_store())["teacher"]["tokens"]
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


SLOW = dict(num=4000, num_views=2, shard_rows=40, numbers="int8")


@pytest.mark.slow
def test_killed_fills_end_with_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fill(whole, **SLOW)
    command = [sys.executable, "-m", "tests.data.test_cache", str(killed)]
    for kill in range(6):
        process = subprocess.Popen(command, cwd=ROOT)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(killed.glob("teacher.tokens/*.npy"))) > 25 * (kill + 1):
                break
            time.sleep(0.002)
        assert process.poll() is None, "the fill ended before it was killed"
        process.kill()
        process.wait()
        assert not json.loads((killed / "manifest.json").read_text())["complete"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert contents(killed) == contents(whole)


if __name__ == "__main__":
    fill(sys.argv[1], **SLOW)
