import errno
import json
import logging
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eegkd.errors import InputError
from eegkd.host.sealed import seal
from eegkd.train import checkpoint, init_state
from eegkd.train.optimiser import OptimConfig, make_optimiser
from tests.support import toy
from tests.support.small_disk import fill, small_disk


def make_tree(width=4):
    system = toy.make_system()
    stage = system.stages[1]
    variables = toy.make_variables(system)["student"]
    params = variables.params | {"half": jnp.ones((width, 2), jnp.bfloat16) / 3}
    tx = make_optimiser(OptimConfig(), 10)
    state = init_state(stage, variables._replace(params=params), tx, jax.random.key(7))
    return state, None


def raw(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def test_round_trip_keeps_bits_types_and_metadata(tmp_path):
    tree, meta = make_tree(), {"loader": {"next_batch": 3}, "value": 0.1 + 0.2}
    checkpoint.save(tmp_path, 5, tree, meta)
    (state, nothing), got_meta = checkpoint.restore(tmp_path, make_tree())
    assert nothing is None
    assert got_meta == meta
    assert jax.tree.structure(state) == jax.tree.structure(tree[0])
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(tree[0]), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(raw(got), raw(want))
    jax.random.split(state.key)


def test_keeps_the_newest_two_and_clears_what_a_kill_left(tmp_path):
    (tmp_path / ".writing-00000009").mkdir()
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"x": jnp.full(3, step)}, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000010"]
    tree, meta = checkpoint.restore(tmp_path, {"x": jnp.zeros(3, int)})
    assert meta["step"] == 10
    np.testing.assert_array_equal(tree["x"], 10)


def test_nothing_to_restore(tmp_path):
    assert checkpoint.restore(tmp_path / "absent", {"x": jnp.zeros(3)}) is None
    (tmp_path / ".writing-00000001").mkdir()
    assert checkpoint.restore(tmp_path, {"x": jnp.zeros(3)}) is None


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def alter_meta(step):
    """Valid JSON with other numbers: what only a hash of itself can tell."""
    path = step / "meta.json"
    text = path.read_text()
    assert '"step": ' in text
    path.write_text(text.replace('"step": ', '"step": 7'))


def empty(step):
    shutil.rmtree(step)
    step.mkdir()


def array_file(step):
    return max(step.glob("state/**/d/*"), key=lambda path: path.stat().st_size)


DAMAGE = {
    "cut meta": (lambda step: truncate(step / "meta.json"), "Unterminated|Expecting"),
    "altered meta": (alter_meta, "meta.json was altered"),
    "no record": (lambda step: (step / "meta.json").write_text("[]"), "meta.json was"),
    "no meta": (lambda step: (step / "meta.json").unlink(), "No such file"),
    "no state": (lambda step: shutil.rmtree(step / "state"), "state/.* is missing"),
    "empty": (empty, "No such file"),
    "cut array": (lambda step: truncate(array_file(step)), "/d/.* was cut or altered"),
    "altered array": (lambda step: flip(array_file(step)), "/d/.* was cut or altered"),
    "no array": (lambda step: array_file(step).unlink(), "/d/.* is missing"),
    "left over": (lambda step: (step / "state" / "new").touch(), "state/new was"),
    "cut manifest": (
        lambda step: truncate(next(step.glob("state/**/manifest.ocdbt"))),
        "manifest.ocdbt was cut or altered",
    ),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path, damage, named, caplog
):
    template = {"x": jnp.zeros(64, int)}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"x": jnp.full(64, step)}, {"step": step})
    damage(tmp_path / "00000002")
    with caplog.at_level(logging.WARNING):
        tree, meta = checkpoint.restore(tmp_path, template)
    assert meta["step"] == 1
    np.testing.assert_array_equal(tree["x"], 1)
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("eegkd")]
    assert str(tmp_path / "00000002") in message
    assert re.search(named, message)
    # Set aside: it must not push a whole one out of the newest two.
    assert names(tmp_path) == ["00000001", "damaged-00000002"]
    checkpoint.save(tmp_path, 3, {"x": jnp.full(64, 3)}, {"step": 3})
    assert names(tmp_path) == ["00000001", "00000003", "damaged-00000002"]
    for step in ("00000001", "00000003"):
        shutil.copytree(tmp_path / "damaged-00000002", tmp_path / f"copy-{step}")
        shutil.rmtree(tmp_path / step)
        (tmp_path / f"copy-{step}").rename(tmp_path / step)
    with pytest.raises(InputError, match=r"No checkpoint in .* is whole \(2 damaged"):
        checkpoint.restore(tmp_path, template)
    assert names(tmp_path) == ["00000001", "00000003", "damaged-00000002"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_another_format_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "VERSION", 99)
        checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)}, {})
    with pytest.raises(InputError, match="is of format 99, this version .* reads 1"):
        checkpoint.restore(tmp_path, {"x": jnp.ones(3)})


def test_files_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    events = []
    rename, sync_tree = checkpoint.Path.rename, checkpoint.sync_tree

    def synced(folder):
        files = {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
        events.append(("sync", folder.name, "meta.json" in files, len(files) > 5))
        sync_tree(folder)

    def renamed(path, target):
        events.append(("rename", path.name))
        return rename(path, target)

    monkeypatch.setattr(checkpoint, "sync_tree", synced)
    monkeypatch.setattr(checkpoint.Path, "rename", renamed)
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)}, {})
    ours = [event for event in events if event[1] == ".writing-00000001"]
    assert ours == [
        ("sync", ".writing-00000001", True, True),
        ("rename", ".writing-00000001"),
    ]


def test_a_really_full_disk(tmp_path, caplog):
    tree = {"x": jnp.asarray(np.random.default_rng(0).normal(size=200_000))}
    template = jax.tree.map(jnp.zeros_like, tree)
    with small_disk(tmp_path, megabytes=6) as folder:
        for step in (1, 2):
            checkpoint.save(folder, step, tree, {"step": step})
        filler = fill(folder, leave=300_000)
        with pytest.raises(InputError, match=f"{folder}: it takes 0.8 MB and 0.3 MB"):
            checkpoint.save(folder, 3, tree, {"step": 3})
        with pytest.MonkeyPatch.context() as patched:
            # As if another program had filled it a moment later.
            patched.setattr(checkpoint, "_check_space", lambda *_: None)
            with pytest.raises(InputError, match=f"{folder}: No space left on device"):
                checkpoint.save(folder, 3, tree, {"step": 3})
        assert caplog.text == ""
        assert names(folder) == ["00000001", "00000002", filler.name]
        assert checkpoint.restore(folder, template)[1] == {"step": 2}
        filler.unlink()
        checkpoint.save(folder, 3, tree, {"step": 3})
        found, meta = checkpoint.restore(folder, template)
        assert meta == {"step": 3}
        np.testing.assert_array_equal(found["x"], tree["x"])


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"a": {"w": jnp.zeros((3, 2))}}, r"\['a'\]\['w'\] is float32\[2, 3\]"),
        ({"a": {"v": jnp.zeros((2, 3))}}, r"\['a'\]\['v'\] is absent there"),
        ({}, r"\['a'\]\['w'\] is .* absent here"),
        ({"a": {"w": jnp.zeros((2, 3), int)}}, r"int32\[2, 3\] here"),
    ],
)
def test_another_models_checkpoint_is_named(tmp_path, template, named):
    checkpoint.save(tmp_path, 1, {"a": {"w": jnp.zeros((2, 3))}}, {})
    with pytest.raises(InputError, match=named):
        checkpoint.restore(tmp_path, template)


def full_by_write(monkeypatch):
    def write(path, tree):
        (checkpoint.Path(path)).mkdir()
        raise ValueError("RESOURCE_EXHAUSTED: " + 300 * "." + "No space left on device")

    monkeypatch.setattr(checkpoint, "_save_pytree", write)


def full_by_metadata(monkeypatch):
    def write(record):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "seal", write)


def full_by_count(monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


@pytest.mark.parametrize("fill", [full_by_write, full_by_metadata, full_by_count])
def test_full_disk_names_the_folder_and_keeps_the_last(tmp_path, monkeypatch, fill):
    checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)}, {"step": 1})
    with monkeypatch.context() as patched:
        fill(patched)
        with pytest.raises(InputError, match=f"{tmp_path}: (No space left|it takes)"):
            checkpoint.save(tmp_path, 2, {"x": jnp.ones(3)}, {"step": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["00000001"]
    assert checkpoint.restore(tmp_path, {"x": jnp.zeros(3)})[1] == {"step": 1}


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        checkpoint.save(tmp_path / "file", 1, {"x": jnp.ones(3)}, {})


def test_metadata_is_plain_json(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"x": jnp.ones(3)}, {"note": "a"})
    assert json.loads((path / "meta.json").read_text())["meta"] == {"note": "a"}


def test_trainings_side_by_side_save_and_restore_their_own(tmp_path):
    def save_often(i):
        for step in range(1, 5):
            checkpoint.save(tmp_path / str(i), step, {"a": jnp.full(9, i)}, {"i": i})
        return checkpoint.restore(tmp_path / str(i), {"a": jnp.zeros(9, int)})

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(save_often, range(4)))
    for i, (tree, meta) in enumerate(found):
        assert meta == {"i": i}
        np.testing.assert_array_equal(tree["a"], np.full(9, i))


def test_a_scalar_of_numpy_is_kept_as_one(tmp_path):
    tree = {"x": jnp.arange(3.0), "a": np.float32(0.1), "b": np.int64(7)}
    checkpoint.save(tmp_path, 1, tree, {})
    like = {"x": jnp.zeros(3), "a": np.float32(0), "b": np.int64(0)}
    again, _ = checkpoint.restore(tmp_path, like)
    assert (again["a"], again["b"]) == (np.float32(0.1), 7)
    assert {type(again["a"]), type(again["b"])} == {np.float32, np.int64}


def test_what_is_no_array_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"\['x'\] is of type object: .* arrays only"):
        checkpoint.save(tmp_path, 1, {"x": object()}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("files", ["a"], "files is a list of 1, not an object"),
        ("files", {"a": 3}, "files.a is 3, not a text"),
        ("meta", "x", "meta is 'x', not an object"),
        ("leaves", None, "leaves is null, not an object"),
    ],
)
def test_a_record_of_other_types_is_damaged(tmp_path, caplog, field, value, said):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"x": jnp.zeros(3)}, {"step": step})
    path = tmp_path / "00000002" / "meta.json"
    path.write_text(seal(json.loads(path.read_text()) | {field: value}))
    _, meta = checkpoint.restore(tmp_path, {"x": jnp.zeros(3)})
    assert meta["step"] == 1
    assert said in caplog.text
