"""Kills in the middle of a run, then the same command again."""

import collections
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from eegkd.data.windows.store import WindowStore
from experiments import torture
from experiments.torture import differ
from tests.support import tiny_run
from tests.support.processes import running

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
FAKE = os.path.join(ROOT, "tests", "support", "fake_run.py")


def command(out):
    return [sys.executable, "-m", "tests.support.tiny_run", str(out)]


def options(out):
    # A cache of their own: a kill may leave half of a compiled program there.
    own = {"JAX_COMPILATION_CACHE_DIR": str(out.parent / "xla")}
    return {"cwd": ROOT, "env": os.environ | own, "stdout": subprocess.DEVNULL}


def kill_while_training(out, model):
    """Kills the run once `model` has a checkpoint and is not finished."""
    silent = {**options(out), "stderr": subprocess.DEVNULL}
    with running(command(out), **silent) as process:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if has_checkpoint(out / "fold0" / model):
                return
            time.sleep(0.005)
    raise AssertionError(f"{model} was not caught in training")


def has_checkpoint(folder):
    # Not `glob`: before Python 3.13 it fails where a folder goes while it looks.
    return any(
        "meta.json" in files and os.path.basename(where).isdigit()
        for where, _, files in os.walk(folder)
    )


# CI kills the run of `test_plugin`, by its command and with worker processes.
@pytest.mark.nightly
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, **options(whole))
    kill_while_training(killed, "teacher")
    kill_while_training(killed, "student")
    subprocess.run(command(killed), check=True, **options(killed))
    names = sorted(p.relative_to(whole) for p in whole.rglob("variables.safetensors"))
    assert len(names) == 4
    for name in names:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    for name in sorted(p.relative_to(whole) for p in whole.rglob("test.npz")):
        with np.load(whole / name) as a, np.load(killed / name) as b:
            np.testing.assert_array_equal(a["prob"], b["prob"])


SMALL = (
    *("--eeg.dim", "16", "--eeg.depth", "2", "--eeg.ffn_mult", "1"),
    *("--eeg.num_heads", "2", "--eeg.kernel", "5", "--eeg.stem_kernels", "7", "3"),
    *("--text.dim", "16", "--text.depth", "1", "--text.num_heads", "2"),
    *("--proj.dim", "8", "--student.depth", "1"),
    *("--split", "kfold", "--num_folds", "2", "--rows", "linear"),
    *("--train.epochs", "15", "--train.batch_size", "16"),
)


@pytest.mark.nightly
def test_random_kills_of_the_command_end_with_the_same_bytes(tmp_path):
    memory = tiny_run.tiny_store()
    store = tmp_path / "store"
    WindowStore.from_arrays(store, memory.signal, memory.index, memory.manifest)
    command = [sys.executable, "-m", "experiments.torture", "--kills", "4"]
    command += ["--out", str(tmp_path / "out"), "--store", str(store), *SMALL]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout
    assert "the same bytes" in done.stdout
    record = json.loads((tmp_path / "out" / "torture0.json").read_text())
    assert signals(record) == {"SIGKILL": 2, "SIGTERM": 2}


def signals(record):
    return collections.Counter(kill["signal"] for kill in record["kills"])


def torture_fake(tmp_path, monkeypatch, fault, kills):
    program = (sys.executable, str(FAKE))
    sound = (*program, "none")
    monkeypatch.setattr(torture, "EEGKD", sound)
    work_s = torture._left_alone(tmp_path / "whole", ["--x"], tmp_path)
    assert work_s > 0.2
    monkeypatch.setattr(torture, "EEGKD", (*program, fault))
    monkeypatch.setattr(torture, "OPTIONS", ())
    monkeypatch.setattr(torture, "_left_alone", lambda *_: work_s)
    return torture.torture(tmp_path, kills, 0, tmp_path / "store", [])


def test_a_sound_program_survives_the_torture(tmp_path, monkeypatch, capsys):
    assert torture_fake(tmp_path, monkeypatch, "none", 16) == 0
    record = json.loads((tmp_path / "torture0.json").read_text())
    assert record["differences"] == []
    assert signals(record) == {"SIGKILL": 8, "SIGTERM": 8}
    assert {kill["code"] for kill in record["kills"]} <= {-9, -15, 130}
    where = {kill["where"].split(",")[0] for kill in record["kills"]}
    assert where >= {"teacher", "student"}
    assert "16 kills" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "named"),
    [("forgets", "model.safetensors"), ("stays", ".model.part was left over")],
)
def test_an_unsound_program_does_not(tmp_path, monkeypatch, capsys, fault, named):
    assert torture_fake(tmp_path, monkeypatch, fault, 6) == 1
    assert named in capsys.readouterr().out


def test_a_program_that_does_not_go_on_is_named(tmp_path, monkeypatch):
    with pytest.raises(torture.Failed, match="exit code 3"):
        torture_fake(tmp_path, monkeypatch, "fails", 6)


@pytest.fixture
def pair(tmp_path):
    """Two finished runs; the second was resumed once."""
    row = {"fold": 0, "model": "student", "seed": 0, "step": 20, "loss": 0.5}
    place = tmp_path / "a" / "fold0" / "student" / "seed0"
    place.mkdir(parents=True)
    for name in ("variables.safetensors", "val.npz", "test.npz", "done.json"):
        (place / name).write_text(name)
    for name in ("results.json", "splits.json"):
        (tmp_path / "a" / name).write_text(name)
    (tmp_path / "a" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "metrics.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    (tmp_path / "b" / "fold0" / "student" / "seed0" / "done.json").write_text("2 s")
    return tmp_path / "a", tmp_path / "b"


def test_equal_runs_do_not_differ(pair):
    assert differ(*pair) == []


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("fold0/student/seed0/variables.safetensors", "x", "variables.safetensors"),
        ("fold0/student/seed0/test.npz", "x", "fold0/student/seed0/test.npz"),
        ("fold0/teacher/done.json", "x", "fold0/teacher/done.json is in one run alone"),
        ("results.json", "x", "results.json"),
        ("fold0/student/seed0/.val.npz.3.part", "x", ".val.npz.3.part was left over"),
        (
            "metrics.jsonl",
            '{"fold": 0, "model": "student", "seed": 0, "step": 20, "loss": 0.6}\n',
            "metrics.jsonl",
        ),
    ],
)
def test_differences_are_named(pair, name, content, named):
    whole, run = pair
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    assert any(named in what for what in differ(whole, run))


def test_a_pair_without_models_is_no_success(pair):
    for run in pair:
        shutil.rmtree(run / "fold0")
    assert differ(*pair) == ["the run left alone has no models"]
