"""Damaged, foreign and full run folders: named, recovered or refused, never silent."""

import json
import logging
import math
import re
import shutil

import pytest

from eegkd.errors import InputError
from eegkd.pipeline import finished, fit, folder
from eegkd.pipeline.folder import (
    open_log,
    open_run,
    read_json,
    read_log,
    read_record,
    write_json,
)
from eegkd.train.loop_state import LoopState
from tests.support import tiny_run
from tests.support.small_disk import fill, small_disk


def record(path, **changes):
    fields = {
        "system": "distilclip_eeg",
        "run": tiny_run.tiny_config(path),
        "store": {"path": "", "fingerprint": "abc"},
        "num_folds": 2,
        "variants": [],
        "terms": {"system": {"student": {"kd": 0.5}}},
    }
    return fields | changes


def test_the_same_run_is_continued_wherever_it_lies(tmp_path, caplog):
    open_run(tmp_path / "a", record(tmp_path / "a"))
    (tmp_path / "a" / "fold0").mkdir()
    (tmp_path / "a" / "fold0" / ".done.json.7.part").touch()
    (tmp_path / "a").rename(tmp_path / "b")
    before = (tmp_path / "b" / "config.json").read_text()
    open_run(tmp_path / "b", record(tmp_path / "b"))
    assert (tmp_path / "b" / "config.json").read_text() == before
    assert list((tmp_path / "b" / "fold0").iterdir()) == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"run": tiny_run.tiny_config("", seed=3)}, "another `seed`: it was 0, now 3"),
        (
            {"store": {"path": "s", "fingerprint": "x"}},
            "other windows than .* store s:",
        ),
        ({"num_folds": 3}, "other num_folds: it was 2, now 3"),
        ({"variants": ["a"]}, r"other variants: it was \[\], now \['a'\]"),
        ({"system": "dlink"}, "other system: it was distilclip_eeg, now dlink"),
        (
            {"terms": {"system": {"student": {"kd": 1.0}}}},
            "other terms: system was .*kd",
        ),
    ],
)
def test_another_run_in_the_folder_is_refused(tmp_path, changes, named):
    open_run(tmp_path, record(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path} (holds|was begun).*{named}"):
        open_run(tmp_path, record(tmp_path, **changes))


def test_options_newer_than_the_run_have_their_defaults_there(tmp_path):
    open_run(tmp_path, record(tmp_path))
    path = tmp_path / "config.json"
    old = read_json(path)
    del old["run"]["train"]["max_steps"], old["terms"]
    write_json(path, old)
    open_run(tmp_path, record(tmp_path))
    changed = tiny_run.tiny_config("", train=fit.RunConfig().train)
    with pytest.raises(InputError, match="another `train`"):
        open_run(tmp_path, record(tmp_path, run=changed))


def test_other_versions_are_said(tmp_path, caplog):
    open_run(tmp_path, record(tmp_path))
    path = tmp_path / "config.json"
    old = read_json(path)
    write_json(path, old | {"versions": old["versions"] | {"jax": "0.1"}})
    open_run(tmp_path, record(tmp_path))
    (message,) = [r.getMessage() for r in caplog.records]
    assert re.search(r"was begun with jax 0\.1 \(now .*\): its last digits", message)


@pytest.mark.parametrize("content", ["[]", "{}", '{"system": 1}', '{"run": {}}'])
def test_another_config_json_is_no_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=f"{tmp_path} is no run folder: .* has no `"):
        read_record(tmp_path)


def test_options_that_are_none(tmp_path):
    open_run(tmp_path, record(tmp_path))
    path = tmp_path / "config.json"
    old = read_json(path)
    write_json(path, old | {"run": old["run"] | {"train": 3}})
    with pytest.raises(InputError, match="train is 3, not an object"):
        open_run(tmp_path, record(tmp_path))


def test_a_run_stopped_before_it_was_one(tmp_path):
    (tmp_path / "store.partial").mkdir()
    with pytest.raises(InputError, match="give the command that began it once more"):
        read_record(tmp_path)


def test_a_cut_last_line_is_dropped_and_said(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with open_log(path) as log:
        log({"step": 1, "loss": math.nan})
        log({"step": 2})
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:-5], whole + b'{"st'):
        path.write_bytes(cut)
        caplog.clear()
        with open_log(path) as log:
            log({"step": 9})
        assert f"{path}: its last line was cut" in caplog.text
        steps = [row["step"] for row in read_log(path)]
        assert steps == ([1, 2, 9] if cut.startswith(whole) else [1, 9])
    assert math.isnan(read_log(path)[0]["loss"])


def test_a_damaged_line_is_named(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\xff\n7\n{"step": 4}\n')
    assert read_log(path) == [{"step": 1}, {"step": 4}]
    assert [f"line {n} is damaged" in caplog.text for n in (1, 2, 3, 4)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_a_log_on_a_full_disk(tmp_path):
    with small_disk(tmp_path, megabytes=1) as disk:
        path = disk / "metrics.jsonl"
        with open_log(path) as log:
            log({"step": 1})
            filler = fill(disk, leave=0)

            def write_much():
                for step in range(10_000):
                    log({"step": step, "text": "x" * 100})

            with pytest.raises(InputError, match=f"Cannot write to {disk}: No space"):
                write_much()
        filler.unlink()
        with open_log(path) as log:
            log({"step": -1})
        steps = [row["step"] for row in read_log(path)]
        assert steps[0] == 1
        assert steps[1:-1] == list(range(len(steps) - 2))
        assert steps[-1] == -1


def test_damaged_results_are_refused_by_name(tmp_path):
    for name in finished.RESULTS:
        (tmp_path / name).write_text(name)
    files = {name: finished.hash_file(tmp_path / name) for name in finished.RESULTS}
    write_json(tmp_path / "done.json", {"seconds": 1.0, "files": files})
    finished.check_results(tmp_path)
    (tmp_path / "val.npz").write_text("val.npy")
    with pytest.raises(InputError, match=f"{tmp_path}/val.npz was altered.*resume"):
        finished.check_results(tmp_path)
    (tmp_path / "val.npz").unlink()
    with pytest.raises(InputError, match=f"{tmp_path}/val.npz is gone"):
        finished.check_results(tmp_path)


# Six updates a training, and a checkpoint after each.
TRAIN = tiny_run.TrainConfig(epochs=2, batch_size=16, save_every_s=0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
    return out


def same_models(whole, other):
    names = sorted(p.relative_to(whole) for p in whole.rglob("variables.safetensors"))
    assert len(names) == 4
    for name in names:
        for file in finished.RESULTS:
            place = name.with_name(file)
            assert (whole / place).read_bytes() == (other / place).read_bytes(), place
    assert (whole / "results.json").read_text() == (other / "results.json").read_text()


class Fault(Exception):
    """What stands for a kill inside a function."""


def break_into(monkeypatch, owner, name, when, what):
    """Does `what` at the `when`-th call of a function, just before it."""
    real, calls = getattr(owner, name), []

    def broken(*args, **kwargs):
        calls.append(name)
        if len(calls) == when:
            what()
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, broken)


PLACES = {
    "checkpoint": (LoopState, "save", 3),
    "variables": (finished, "save_variables", 1),
    "predictions": (finished, "save_predictions", 2),
    "done": (finished, "write_json", 1),
    "clearing": (fit, "_drop_checkpoints", 1),
    "summary": (folder, "write_atomic", 6),
}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("checkpoint",), marks=pytest.mark.slow),
        pytest.param(tuple(PLACES), marks=pytest.mark.nightly),
    ],
    ids=["one", "all"],
)
def test_a_run_broken_off_anywhere_ends_with_the_same_bytes(tmp_path, whole, names):
    out = tmp_path / "run"

    def stop():
        raise Fault

    for place in (PLACES[name] for name in names):
        with pytest.MonkeyPatch.context() as patched:
            break_into(patched, *place, stop)
            with pytest.raises(Fault):
                tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
    tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
    same_models(whole, out)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("summary",), marks=pytest.mark.slow),
        pytest.param(
            tuple(n for n in PLACES if n != "clearing"), marks=pytest.mark.nightly
        ),
    ],
    ids=["one", "all"],
)
def test_a_disk_that_fills_up_anywhere_stops_a_run_that_goes_on(tmp_path, whole, names):
    with small_disk(tmp_path, megabytes=8) as disk:
        out = disk / "run"
        for name in names:
            with pytest.MonkeyPatch.context() as patched:
                break_into(patched, *PLACES[name], lambda: fill(disk, leave=0))
                with pytest.raises(InputError, match="Cannot write .*"):
                    tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
            (disk / "filler").unlink()
        tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
        same_models(whole, out)


@pytest.mark.slow
def test_a_torn_last_checkpoint_costs_its_steps_alone(tmp_path, whole, caplog):
    out = tmp_path / "run"

    def stop():
        raise Fault

    with pytest.MonkeyPatch.context() as patched:
        break_into(patched, LoopState, "save", 5, stop)
        with pytest.raises(Fault):
            tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
    steps = sorted((out / "fold0" / "teacher" / "checkpoints").glob("[0-9]*"))
    array = max(steps[-1].glob("state/**/d/*"), key=lambda p: p.stat().st_size)
    array.write_bytes(array.read_bytes()[:-1])
    # A cut log and a half-renamed folder beside it, as one kill may leave them.
    shutil.copytree(steps[-1], steps[-1].with_name(".writing-00000099"))
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"fold": 0})[:-2])
    with caplog.at_level(logging.WARNING, "eegkd"):
        tiny_run.run(out, rows=(), num_folds=2, train=TRAIN)
    assert f"Checkpoint {steps[-1]} is damaged" in caplog.text
    assert "its last line was cut" in caplog.text
    same_models(whole, out)
    assert all("step" in row for row in read_log(out / "metrics.jsonl"))
