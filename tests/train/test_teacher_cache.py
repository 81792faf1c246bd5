"""A teacher's outputs through the cache, against the same teacher in every step."""

import contextlib
import dataclasses
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eegkd.cache.config import CacheConfig
from eegkd.cache.files import Speed
from eegkd.cache.read import open_cache
from eegkd.config import RunConfig
from eegkd.data.batches.augment import AugmentConfig
from eegkd.data.batches.loader import make_loader
from eegkd.data.batches.maker import BatchMaker, BatchPlan
from eegkd.data.windows.folds import Fold
from eegkd.errors import InputError, Interrupted
from eegkd.losses import Term
from eegkd.pipeline.folds import FoldData
from eegkd.pipeline.observe import QUIET
from eegkd.pipeline.teacher_choice import Teacher
from eegkd.pipeline.teacher_outputs import teacher_outputs
from eegkd.systems import add_terms
from eegkd.train.inputs import teacher_rows, teacher_specs, variables_hash
from eegkd.train.state import init_state
from eegkd.train.step import make_train_step
from tests.support import toy
from tests.support.cache_toy import contents

NAMES = ("teacher.logits", "teacher.embedding")
VIEWS = AugmentConfig(scale=0.3, shift=0.2, noise=0.5, num_views=3)


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch):
    """Spares each test the 32 MiB that a disk's speed is measured with."""
    speed = Speed(write=1e9, read=1e9)
    place = "eegkd.pipeline.teacher_outputs.measure_speed"
    monkeypatch.setattr(place, lambda folder: speed)


@pytest.fixture(scope="module")
def setting():
    system = toy.make_matching_system()
    variables = toy.make_variables(system)
    return system, variables, {"teacher": variables["teacher"]}, toy.make_store()


def batch_of(store):
    return BatchMaker(store=store)(np.arange(2))


def outputs(
    setting, place, rows, *, mode="cached", augment=None, observer=QUIET, **cache
):
    system, _, upstream, store = setting
    config = RunConfig(augment=augment or AugmentConfig(), cache=CacheConfig(**cache))
    specs = teacher_specs(system, "student", NAMES, upstream, batch_of(store))
    given = NAMES if cache.get("given") else ()
    data = FoldData(store, Fold(0, rows, rows[:0], rows[:0]), None)
    return teacher_outputs(
        Teacher(mode, specs, given), system, upstream, data, config, place,
        observer=observer,
    )  # fmt: skip


@functools.cache
def student_step():
    # Small steps: at 0.1 twenty updates blow rounding up four hundred times.
    tx = optax.sgd(0.01)
    return tx, jax.jit(make_train_step(toy.make_matching_system(), "student", tx))


def trained(setting, rows, *, cache, augment, num_steps=20):
    """Trains the student by plain SGD; returns its parameters and last metrics."""
    system, variables, upstream, store = setting
    tx, step = student_step()
    start = variables["student"]
    state = init_state(system.stages[-1], start, tx, jax.random.key(0))
    loader = make_loader(
        store, rows, batch_size=10, seed=0, num_steps=num_steps,
        plan=BatchPlan(augment=augment, cache=cache),
    )  # fmt: skip
    metrics = {}
    for batch in loader:
        state, metrics = step(state, start.frozen, {} if cache else upstream, batch)
    return state.params, metrics


@pytest.mark.parametrize("augment", [AugmentConfig(), VIEWS], ids=["plain", "views"])
@pytest.mark.parametrize("mode", ["memory", "cached"])
def test_kept_outputs_train_the_student_that_an_online_teacher_trains(
    setting, tmp_path, mode, augment
):
    rows = setting[-1].rows()[:50][::-1]
    cache = outputs(setting, tmp_path / "c", rows, mode=mode, augment=augment)
    kept = trained(setting, rows, cache=cache, augment=augment)
    online = trained(setting, rows, cache=None, augment=augment)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(online), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_the_wrong_view_would_be_seen(setting, tmp_path):
    rows = setting[-1].rows()
    cache = outputs(setting, tmp_path / "c", rows, augment=VIEWS)
    other = dataclasses.replace(VIEWS, seed=1)
    kept, _ = trained(setting, rows, cache=cache, augment=other)
    online, _ = trained(setting, rows, cache=None, augment=other)
    gaps = jax.tree.map(lambda a, b: np.abs(a - b).max(), kept, online)
    assert max(jax.tree.leaves(gaps)) > 1e-3


def test_rows_that_were_not_asked_for_are_not_there(setting, tmp_path):
    rows = setting[-1].rows()
    cache = outputs(setting, tmp_path / "c", rows[:30])
    cache["teacher"]["logits"].gather(rows[:30])
    with pytest.raises(ValueError, match="has no teacher output"):
        cache["teacher"]["logits"].gather(rows[30:])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("teacher", "`teacher`"),
        ("signal", "`signal`"),
        ("rows", "`windows`"),
        ("augment", "`augment`"),
        ("seed", "`augment.seed`"),
        ("num_views", "`num_views`"),
        ("form", "`form.teacher.embedding.numbers`"),
    ],
)
def test_what_differs_is_named(setting, tmp_path, change, field):
    system, variables, upstream, store = setting
    rows, folder = store.rows(), tmp_path / "c"
    options = {"augment": VIEWS} if change in ("seed", "num_views") else {}
    outputs(setting, folder, rows, **options)
    if change == "teacher":
        other = toy.make_variables(system, seed=9)["teacher"]
        setting = (system, variables, {"teacher": other}, store)
    elif change == "signal":
        signal = store.signal.copy()
        signal[3, 1, 2] += 1e-3
        changed = dataclasses.replace(store, signal=signal)
        setting = (system, variables, upstream, changed)
    elif change == "rows":
        rows = rows[:-1]
    elif change == "augment":
        options = {"augment": VIEWS}
    elif change == "form":
        options = {"form": "int8", "tensors": NAMES}
    else:
        options = {"augment": dataclasses.replace(VIEWS, **{change: 7})}
    with pytest.raises(InputError, match=field):
        outputs(setting, folder, rows, **options)


def test_sigterm_stops_a_fill_after_a_shard_and_the_same_call_resumes(
    setting, tmp_path, monkeypatch
):
    monkeypatch.setattr("eegkd.cache.fill._SHARD_ROWS", 16)
    rows, said = setting[-1].rows(), []

    def show(done):
        if done == 32:
            signal.raise_signal(signal.SIGTERM)

    bar = lambda what, rows: contextlib.nullcontext(show)
    observer = QUIET._replace(say=said.append, bar=bar)
    with pytest.raises(Interrupted, match="row 32 of 60 .* same command again"):
        outputs(setting, tmp_path / "cut", rows, observer=observer)
    assert "28 B a window, 60 windows: 1.6 KiB" in said[0]
    assert "writes 1000 MB/s" in said[0]
    outputs(setting, tmp_path / "cut", rows)
    outputs(setting, tmp_path / "whole", rows)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_runs_share_a_folder_by_key(setting, tmp_path):
    system, variables, upstream, store = setting
    rows = store.rows()

    def filled(**options):
        outputs(
            setting, tmp_path / "own", rows, folder=str(tmp_path / "all"), **options
        )
        return sorted(p.name for p in (tmp_path / "all").iterdir())

    one = filled()
    assert filled() == one
    assert len(one[0]) == 16
    assert len(filled(form="bfloat16", tensors=NAMES)) == 2
    assert not (tmp_path / "own").exists()


@pytest.fixture
def given(setting, tmp_path):
    """Another framework's arrays: more windows than needed, in another order."""
    store = setting[-1]
    ids = np.append(store.index["window_id"], 999)
    rng = np.random.default_rng(1)
    arrays = {
        "window_id": ids,
        "teacher.logits": rng.normal(size=(61, toy.CLASSES)).astype("f4"),
        "teacher.embedding": rng.normal(size=(61, toy.WIDTH)).astype("f2"),
    }
    folder = tmp_path / "given"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder, arrays


def test_a_given_folder_is_matched_by_window(setting, tmp_path, given):
    folder, arrays = given
    rows = setting[-1].rows()[::-1][:40]
    cache = outputs(setting, tmp_path / "c", rows, given=str(folder))
    for name in NAMES:
        tensor = cache["teacher"][name.partition(".")[2]]
        np.testing.assert_array_equal(tensor.gather(rows), arrays[name][rows])


def test_a_damaged_cache_of_given_arrays_is_refused(setting, tmp_path, given):
    rows = setting[-1].rows()
    outputs(setting, tmp_path / "c", rows, given=str(given[0]))
    (tmp_path / "c" / "teacher.logits" / "00000.npy").unlink()
    with pytest.raises(InputError, match="teacher.logits/00000.npy is missing"):
        outputs(setting, tmp_path / "c", rows, given=str(given[0]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing id", r"window_id.npy lacks 1 of 60 windows, window_id 17 the first"),
        ("duplicate id", "window_id.npy: window_id 17 is there twice"),
        ("ids", "window_id.npy is float64"),
        ("shape", r"teacher.logits.npy has shape \[61, 2\], not \[61, 3\]"),
        ("rows", r"teacher.logits.npy has shape \[60, 3\]"),
        ("nan", "teacher.logits is NaN or infinite for window_id 17"),
        ("bits", "teacher.logits.npy holds uint16; write it as float32"),
        ("no file", "window_id.npy is missing"),
        ("no array", "window_id.npy: cannot be read"),
        ("objects", "teacher.logits.npy: cannot be .*pickle"),
        ("other", "`given.teacher.logits.npy`"),
    ],
)
def test_a_given_folder_with_a_fault_is_refused_by_name(
    setting, tmp_path, given, how, message
):
    folder, arrays = given
    rows = setting[-1].rows()
    where = int(np.flatnonzero(arrays["window_id"] == 17)[0])
    ids, logits = arrays["window_id"].copy(), arrays["teacher.logits"].copy()
    if how == "other":
        outputs(setting, tmp_path / "c", rows, given=str(folder))
        logits[0] += 1
    elif how == "missing id":
        ids[where] = 500
    elif how == "duplicate id":
        ids[-1] = 17
    elif how == "ids":
        ids = ids.astype(float)
    elif how == "shape":
        logits = logits[:, :2]
    elif how == "rows":
        logits = logits[1:]
    elif how == "nan":
        logits[where, 1] = np.nan
    elif how == "bits":
        logits = logits.astype(np.uint16)
    elif how == "objects":
        logits = logits.astype(object)
    np.save(folder / "window_id.npy", ids)
    np.save(folder / "teacher.logits.npy", logits, allow_pickle=True)
    if how == "no file":
        (folder / "window_id.npy").unlink()
    elif how == "no array":
        (folder / "window_id.npy").write_bytes(b"5,6,7")
    with pytest.raises(InputError, match=message):
        outputs(setting, tmp_path / "c", rows, given=str(folder))


def test_specs_are_the_shapes_of_what_is_computed(setting):
    system, _, upstream, store = setting
    batch = batch_of(store)
    specs = teacher_specs(system, "student", NAMES, upstream, batch)
    assert specs == {
        "teacher.logits": ((toy.CLASSES,), "float32"),
        "teacher.embedding": ((toy.WIDTH,), "float32"),
    }
    made = teacher_rows(system, "student", NAMES, upstream)(batch)
    want, _ = system.stages[0].forward(
        upstream["teacher"], batch, {}, train=False, key=None
    )
    for name in NAMES:
        np.testing.assert_allclose(
            made[name], want[name.partition(".")[2]], rtol=1e-5, atol=1e-6
        )
    with pytest.raises(ValueError, match="does not read teacher.text"):
        teacher_rows(system, "student", ("teacher.text",), upstream)


def test_a_tensor_without_a_row_a_window_is_refused(setting):
    system, _, upstream, store = setting
    term = Term("scale", lambda s, t: s, ("student.logits", "teacher.scale"), 1.0)
    system = add_terms(system, "student", term)
    names = ("teacher.scale",)
    with pytest.raises(InputError, match="teacher.scale has no row a window"):
        teacher_specs(system, "student", names, upstream, batch_of(store))


def test_the_hash_sees_every_value_name_and_dtype(setting):
    upstream = setting[2]
    same = jax.tree.map(jnp.array, upstream)
    assert variables_hash(upstream) == variables_hash(same)
    teacher = upstream["teacher"]
    others = [
        {"vision": teacher},
        {"teacher": teacher._replace(frozen={})},
        {"teacher": jax.tree.map(lambda x: x.astype(jnp.float16), teacher)},
        {"teacher": jax.tree.map(lambda x: x + 1e-4, teacher)},
    ]
    hashes = {variables_hash(other) for other in (upstream, *others)}
    assert len(hashes) == 5


def test_the_cache_can_be_opened_alone(setting, tmp_path):
    store = setting[-1]
    rows = store.rows()[:20]
    outputs(setting, tmp_path / "c", rows)
    cache = open_cache(tmp_path / "c")
    np.testing.assert_array_equal(
        cache.window_ids, np.sort(store.index["window_id"][rows])
    )
    assert cache.manifest["fields"]["system"]["name"] == "toy"
