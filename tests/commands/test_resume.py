"""`--resume RUN` needs nothing else, and says what is missing where it cannot."""

import os
import shutil
import signal

import pytest

from eegkd.cli import main
from eegkd.commands import distill, options
from eegkd.errors import InputError
from eegkd.pipeline.folder import open_run, read_json, write_json
from tests.support.recordings import write_folder
from tests.support.untrained_runs import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    return make_run(folder / "run", write_folder(folder / "mine"))


@pytest.fixture
def run(made, tmp_path):
    """A run of its own, on its own recordings."""
    shutil.copytree(made.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "run" / "config.json"
    path.write_text(path.read_text().replace(str(made.parent), str(tmp_path / "copy")))
    return path.parent


@pytest.fixture
def refused(capsys, monkeypatch):
    monkeypatch.setattr(distill, "tune_process", lambda **_: None)

    def check(*args):
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.strip()]
        return line

    return check


@pytest.fixture
def reached(monkeypatch):
    """Runs a command up to the first training; returns what it would begin with."""

    def check(*args):
        calls = []
        monkeypatch.setattr(distill, "tune_process", lambda **o: calls.append(o))
        monkeypatch.setattr(distill, "open_data", lambda c: (c, [c]))
        monkeypatch.setattr(distill, "signal_of", lambda store: store.signal)
        monkeypatch.setattr(
            distill, "run_distillation", lambda *a, **o: calls.append(a[3])
        )
        assert main([str(arg) for arg in args]) == 0
        tuned, config = calls
        return tuned["quick_compile"], config

    return check


@pytest.mark.parametrize("verb", ["distill", "quickstart"])
def test_all_options_come_from_the_folder(run, reached, verb, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    begun = read_json(run / "config.json")["run"]
    quick, config = reached(verb, "--resume", os.path.relpath(run))
    assert not quick
    assert os.path.samefile(config.out, run)
    assert config.data.root == begun["data"]["root"]
    assert config.train.batch_size == begun["train"]["batch_size"] == 8


def test_a_quickstart_is_resumed_with_its_own_compiler_options(reached, tmp_path):
    quick, config = reached("quickstart", "--seed", "3", "--out", tmp_path / "q")
    assert quick
    record = {
        "system": "distilclip_eeg",
        "run": config,
        "store": {"path": "", "fingerprint": "a"},
        "num_folds": 1,
        "variants": [],
    }
    open_run(tmp_path / "q", record)
    for verb in ("quickstart", "distill"):
        assert reached(verb, "--resume", tmp_path / "q") == (True, config)


def test_paths_are_kept_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["--store", "s", "--data.corpus", "folder", "--data.root", "r"]
    _, config = options.parse_run("distilclip_eeg", args, "distill")
    assert config.store == str(tmp_path / "s")
    assert config.data.root == str(tmp_path / "r")
    assert options.parse_run("distilclip_eeg", [], "distill")[1].store == ""


def test_what_is_missing_is_named(run, refused):
    message = refused("distill", "--resume", run, "--seed", "1")
    assert "--resume takes no" in message
    assert "got --seed 1" in message
    absent = run.parent / "absent"
    for verb in ("distill", "quickstart"):
        assert f"{absent} is no run folder" in refused(verb, "--resume", absent)
    assert not absent.exists()
    recordings = run.parent / "mine"
    with (recordings / "p0.edf").open("ab") as file:
        file.write(bytes(1000))
    assert f"other recordings or labels than those now in {recordings}" in refused(
        "distill", "--resume", run
    )
    shutil.rmtree(recordings)
    assert str(recordings) in refused("distill", "--resume", run)
    record = read_json(run / "config.json")
    record["run"]["store"] = str(absent)
    write_json(run / "config.json", record)
    assert f"{absent} is no window store" in refused("distill", "--resume", run)
    write_json(run / "config.json", record | {"variants": ["no_prompts"]})
    assert "variants of the system (no_prompts)" in refused("distill", "--resume", run)


def test_changed_windows_are_refused(run, refused):
    record = read_json(run / "config.json")
    record["store"]["fingerprint"] = "of another"
    write_json(run / "config.json", record)
    message = refused("distill", "--resume", run)
    assert f"{run} was begun on other windows than those of the store" in message
    assert not (run / ".lock").exists()


def test_another_loss_in_the_folder_is_refused(run, refused):
    record = read_json(run / "config.json")
    record["terms"] = {"system": {"student": {"mine": 1.0}}}
    write_json(run / "config.json", record)
    message = refused("distill", "--resume", run)
    assert "holds a run with other terms" in message
    assert "go on with the program that began it" in message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_of_training_ends_with_130(monkeypatch, capsys, number):
    def stopped(args):
        os.kill(os.getpid(), number)
        raise InputError("not stopped")

    monkeypatch.setattr(distill, "main", stopped)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["distill"]) == 130
    assert "The same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
