import contextlib
import dataclasses
import json
import operator
import re
import subprocess
import sys

import pytest

from eegkd import __version__
from eegkd.cli import VERBS, main
from eegkd.commands.distill import _ask
from eegkd.commands.evaluate import Evaluate
from eegkd.commands.export import Export
from eegkd.commands.options import (
    parse,
    parse_run,
    take_option,
    with_home,
    with_root,
)
from eegkd.commands.plan import PlanSystem
from eegkd.commands.predict import Predict
from eegkd.commands.prepare import Prepare
from eegkd.commands.verbs import parse_verb
from eegkd.data.config import DataConfig
from eegkd.errors import InputError
from eegkd.pipeline.folder import RECORD, write_json
from eegkd.systems.entry import names
from tests.support.real import real
from tests.support.recordings import write_folder

QUICK = """
import sys, time
import eegkd
from eegkd.cli import main
assert main(sys.argv[1:]) in (0, 2)
heavy = {"jax", "numpy", "mne", "matplotlib", "flax", "grain"} & set(sys.modules)
assert not heavy, heavy
assert time.process_time() < 1.0, time.process_time()
"""


@pytest.mark.parametrize("args", [[], ["--help"], ["--version"], ["distil"]])
def test_help_is_quick_and_loads_nothing_heavy(args):
    subprocess.run([sys.executable, "-c", QUICK, *args], check=True)


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: eegkd {verb}" in " ".join(said.split())
    if verb in ("distill", "bench", "plan"):
        assert f"SYSTEM is one of {', '.join(names())}" in said


def test_an_interruption_is_130(monkeypatch, capsys):
    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("eegkd.commands.prepare.estimate", stop)
    assert main(["prepare", "--out", "store"]) == 130
    assert "goes on where it was saved" in capsys.readouterr().err


@pytest.fixture
def config_file(tmp_path):
    """The options of a run, with a few that no preset has, as its folder holds them."""
    args = ["--preset", "paper", "--eeg.dim", "48", "--seed", "3", "--out", "first"]
    _, config = parse_run("distilclip_eeg", args, "distill")
    record = dict.fromkeys(RECORD) | {"system": "distilclip_eeg", "run": config}
    record |= {"store": {}, "num_folds": 5, "variants": []}
    write_json(tmp_path / "mine.json", record)
    return tmp_path / "mine.json", config


def test_a_run_starts_from_the_options_of_another(config_file):
    file, first = config_file
    args = ["--config", str(file), "--train.epochs", "2"]
    entry, again = parse_run("distilclip_eeg", args, "distill")
    assert again.out == "runs/distilclip_eeg-synthetic-again-s3"
    assert again.train == dataclasses.replace(first.train, epochs=2)
    assert dataclasses.replace(again, out="first", train=first.train) == first
    assert _ask(args) == (entry, again)
    _, _, planned = parse_verb(PlanSystem, ["distilclip_eeg", *args], "plan")
    assert planned.eeg == first.eeg


def test_a_config_that_is_none_of_this_run_is_refused(config_file):
    file, _ = config_file
    for system, args, said in (
        ("dlink", (), "is of distilclip_eeg, not of dlink"),
        ("distilclip_eeg", ("--preset", "paper"), "both a start: give one"),
    ):
        with pytest.raises(InputError, match=said):
            parse_run(system, ["--config", str(file), *args], "distill")
    for content in ("[]", "{}", '{"system": "dlink"}'):
        file.write_text(content)
        with pytest.raises(
            InputError, match="mine.json has no `.*config.json of a run"
        ):
            parse_run("distilclip_eeg", ["--config", str(file)], "distill")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_heads", 0, "size .*0"),
        ("depth", 10**9, "depth is 1 to 1000 blocks; got 1000000000"),
        ("depth", 0, "depth is 1 to 1000 blocks; got 0"),
    ],
)
def test_sizes_that_no_model_has_are_refused(config_file, capsys, name, value, said):
    try:
        code = main(["distill", "distilclip_eeg", f"--eeg.{name}", str(value)])
    except SystemExit as end:  # tyro's own, of a value.
        code = end.code
    assert code == 2
    assert re.search(said, capsys.readouterr().err)
    file, _ = config_file
    record = json.loads(file.read_text())
    record["run"]["eeg"][name] = value
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"mine.json: .*{said}"):
        parse_run("distilclip_eeg", ["--config", str(file)], "distill")


def test_an_empty_root_is_found_among_the_real_recordings(tmp_path, monkeypatch):
    (tmp_path / "seizure_bonn").mkdir()
    monkeypatch.setenv("EEGKD_REAL_DATA", str(tmp_path))
    found = with_root(DataConfig(corpus="bonn"))
    assert found.root == str(tmp_path / "seizure_bonn")
    _, config = parse_run("distilclip_eeg", ["--data.corpus", "bonn"], "distill")
    assert config.data.root == found.root
    assert with_root(DataConfig(corpus="bonn", root="mine")).root == "mine"
    for missing in ("eegmat", "folder", "synthetic"):
        assert with_root(DataConfig(corpus=missing)).root == ""
    monkeypatch.delenv("EEGKD_REAL_DATA")
    assert with_root(DataConfig(corpus="bonn")).root == ""


def test_an_option_is_taken_in_both_spellings():
    assert take_option(["a", "--x", "1", "b"], "x") == ("1", ["a", "b"])
    assert take_option(["--x=1", "b"], "x") == ("1", ["b"])
    assert take_option(["--xy", "1"], "x") == (None, ["--xy", "1"])
    with pytest.raises(InputError, match="--x needs a value"):
        take_option(["--x"], "x")


def test_prepare_says_what_it_will_take_and_what_it_made(tmp_path, capsys):
    folder = write_folder(tmp_path / "mine")
    args = ["prepare", "--data.corpus", "folder", "--data.root", str(folder)]
    args += ["--data.rate", "64", "--data.band", "0.5", "25", "--data.window_s", "2"]
    args += ["--data.workers", "1", "--out", str(tmp_path / "store")]
    assert main(args) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 recordings; expected:" in said
    for row in ("windows: seizure │ 40", "windows: background │ 80", "64 Hz"):
        assert row in said
    assert main(args) == 0
    again = " ".join(capsys.readouterr().out.split())
    assert "expected" not in again
    assert "windows: seizure │ 40" in again


def test_prepare_of_a_real_corpus_by_name_alone(tmp_path, capsys):
    real("seizure_scalp")
    out = str(tmp_path / "store")
    assert main(["prepare", "--data.corpus", "scalp", "--out", out]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "125 of 4 s" in said
    assert "windows: seizure │ 29" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--out=~/x", "--data.root", "~/y"], ["--out={}/x", "--data.root", "{}/y"]),
        (["~", "~/a b.edf", "a~/b", "--x=a~"], ["{}", "{}/a b.edf", "a~/b", "--x=a~"]),
        (["--seed", "-1", "--a.b=", "~nobody-here/x"], None),
    ],
)
def test_the_home_folder_is_expanded_in_every_value(monkeypatch, args, said):
    monkeypatch.setenv("HOME", "/somewhere")
    want = args if said is None else [arg.format("/somewhere") for arg in said]
    assert with_home(args) == want


@pytest.mark.parametrize(
    ("cls", "args", "fields"),
    [
        (Prepare, ["--out=~/a", "--data.root=~/b"], ("out", "data.root")),
        (Export, ["~/a", "--out=~/b"], ("run", "out")),
        (Evaluate, ["~/a"], ("run",)),
        (
            Predict,
            ["~/a", "--model=~/b", "--out", "~/c"],
            ("recordings", "model", "out"),
        ),
    ],
)
def test_paths_of_verbs_are_in_the_home_folder(monkeypatch, cls, args, fields):
    monkeypatch.setenv("HOME", "/somewhere")
    found = parse(cls, args, "verb")
    for field, name in zip(fields, "abc", strict=False):
        value = operator.attrgetter(field)(found)
        want = f"/somewhere/{name}"
        assert value == ((want,) if field == "recordings" else want)


def test_paths_of_a_run_are_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    names = ("out", "store", "teacher_run", "cache.folder", "cache.given", "data.root")
    args = [f"--{name}=~/{name}" for name in (*names, "text.file", "text.bert")]
    _, config = parse_run("distilclip_eeg", args, "distill")
    for name in (*names, "text.file", "text.bert"):
        assert operator.attrgetter(name)(config) == f"/somewhere/{name}"
    assert take_option(["--config=~/c"], "config") == ("/somewhere/c", [])
    assert take_option(["--resume", "~/c"], "resume") == ("/somewhere/c", [])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--optim.learning_rate", "nan"], r"--optim\.learning_rate nan: give a num"),
        (["--kd.temperature", "inf"], r"--kd\.temperature inf"),
        (["--cache.limit_gb", "1e999"], r"--cache\.limit_gb inf"),
        (["--data.band", "nan", "40"], r"--data\.band nan 40: give numbers of Hz"),
        (["--data.notch", "inf"], r"--data\.notch inf"),
        (["--data.window_s", "0"], r"--data\.window_s must be .* above 0, got 0"),
        (["--data.window_s", "nan"], r"--data\.window_s .* got nan"),
        (["--data.notch", "1e-6"], r"--data\.notch is 0 or at least 1 Hz"),
        (["--data.rate", "1e9"], r"--data\.rate is at most 1e\+06"),
        (["--seed", "-1"], "--seed -1: give a whole number from 0 to 4294967295"),
        (["--data.seed", str(2**32)], r"--data\.seed 4294967296"),
    ],
)
def test_an_option_that_is_no_number_is_refused(args, said, capsys):
    with contextlib.suppress(SystemExit):  # 2, of the parser.
        assert main(["distill", "distilclip_eeg", *args, "--out", "/dev/null/r"]) == 2
    boxed = capsys.readouterr().err
    assert re.search(said, " ".join(re.sub("[│╭╮╰╯─]", " ", boxed).split()))
    assert "Traceback" not in boxed
