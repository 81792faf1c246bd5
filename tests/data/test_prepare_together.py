"""A store being prepared: by two at once, beside files of others, damaged, moved."""

import contextlib
import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from eegkd.data.config import DataConfig
from eegkd.errors import InputError
from tests.support.processes import running
from tests.support.recordings import write_folder

# The package may export the function under the module's name.
module = importlib.import_module("eegkd.data.windows.prepare")
prepare = module.prepare


@pytest.fixture
def config(tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    about = {"channels": ["C3", "C4"], "rate": 100, "unit": "uV"}
    (root / "windows.json").write_text(json.dumps(about))
    for i in range(4):
        signal = np.random.default_rng(i).normal(scale=20, size=(5, 2, 200))
        np.savez(root / f"{i}.npz", signal=signal, label=np.arange(5) % 2)
    return DataConfig(corpus="arrays", root=str(root), workers=1)


def contents(folder):
    names = ("signal.npy", "index.npz", "manifest.json")
    return [(folder / name).read_bytes() for name in names]


HOLD = """
import pathlib, sys, time
from eegkd.host.atomic import sole_writer
with sole_writer(pathlib.Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_two_at_once_are_one_store_and_one_refusal(config, tmp_path):
    want, out = tmp_path / "want", tmp_path / "out"
    prepare(config, want, progress=False)
    parts = out.with_name("out.partial")
    command = [sys.executable, "-c", HOLD, str(parts)]
    with running(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "mine\n"
        with pytest.raises(InputError, match=r"out\.partial is in use by process \d+"):
            prepare(config, out, progress=False)
    # Killed: its lock is left over and locks nothing.
    assert (parts / ".lock").exists()
    prepare(config, out, progress=False)
    assert contents(out) == contents(want)
    assert not parts.exists()


def test_a_store_that_was_finished_meanwhile_is_opened(config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    lock = module.sole_writer

    @contextlib.contextmanager
    def slow(folder):
        monkeypatch.setattr(module, "sole_writer", lock)
        prepare(config, out, progress=False)
        with lock(folder):
            yield

    monkeypatch.setattr(module, "sole_writer", slow)
    made, make_part = [], module.make_part
    monkeypatch.setattr(module, "make_part", lambda *a: made.append(a) or make_part(*a))
    store = prepare(config, out, progress=False)
    assert len(made) == 4
    assert store.path == out
    assert not out.with_name("out.partial").exists()


def test_files_of_others_beside_a_store_are_left_alone(config, tmp_path):
    out = tmp_path / "out"
    others = [
        tmp_path / "out.partial" / "notes.txt",
        tmp_path / "out.partial" / "a.npy",
    ]
    others[0].parent.mkdir()
    for path in others:
        path.write_text("mine")
    prepare(config, out, progress=False)
    assert sorted((tmp_path / "out.partial").iterdir()) == sorted(others)
    (tmp_path / "two.writing").mkdir()
    (tmp_path / "two.writing" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"two\.writing is not of this library.*--out"):
        prepare(config, tmp_path / "two", progress=False)
    assert (tmp_path / "two.writing" / "notes.txt").read_text() == "mine"
    # The cure.
    (tmp_path / "two.writing").rename(tmp_path / "away")
    prepare(config, tmp_path / "two", progress=False)


@pytest.mark.parametrize("suffix", [".json", ".npy"])
def test_a_part_that_was_cut_is_named_and_made_again(
    config, tmp_path, monkeypatch, suffix
):
    want, out = tmp_path / "want", tmp_path / "out"
    prepare(config, want, progress=False)
    join = module._join
    monkeypatch.setattr(module, "_join", lambda *a: (_ for _ in ()).throw(KeyError()))
    with pytest.raises(KeyError):
        prepare(config, out, progress=False)
    monkeypatch.setattr(module, "_join", join)
    file = sorted(out.with_name("out.partial").glob(f"*{suffix}"))[2]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{file}: .*Delete this file") as raised:
        prepare(config, out, progress=False)
    assert "run the same command again" in str(raised.value)
    file.unlink()  # The cure.
    prepare(config, out, progress=False)
    assert contents(out) == contents(want)


def test_workers_follow_where_paths_are_relative_to(tmp_path, monkeypatch):
    band = (0.5, 40.0)
    config = DataConfig(
        corpus="folder", root="mine", window_s=2.0, band=band, workers=2
    )
    for name in ("first", "second"):
        recordings = write_folder(tmp_path / name / "mine", num_subjects=2)
        monkeypatch.chdir(tmp_path / name)
        prepare(config, "store", progress=False)
        assert (tmp_path / name / "store" / "manifest.json").is_file()
        # What the next one's workers would find in the folder of these.
        shutil.rmtree(recordings)
