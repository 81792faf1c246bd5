"""`--config FILE`: the config.json of a run as the start of another."""

import dataclasses
import json
import logging

import pytest

from eegkd.commands.options import parse_run
from eegkd.errors import InputError
from eegkd.host.paths import in_full
from eegkd.pipeline.folder import from_json, open_run, to_json, write_json

SYSTEM = "distilclip_eeg"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EEGKD_REAL_DATA", raising=False)


def parsed(*args):
    return parse_run(SYSTEM, args, "distill")[1]


def record_of(config):
    store = {"path": "", "fingerprint": "f"}
    return {
        "system": SYSTEM,
        "run": config,
        "store": store,
        "num_folds": 5,
        "variants": [],
        "terms": {},
    }


def write(path, config, **run):
    record = to_json(record_of(config))
    record["run"] |= run
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    return record


def without_out(config):
    return dataclasses.replace(config, out="")


def test_a_file_and_its_folder_give_the_same_options(tmp_path):
    first = parsed("--preset", "paper", "--eeg.dim", "48", "--seed", "3")
    write(tmp_path / "run" / "config.json", first)
    for name in ("run/config.json", "run", "run/"):
        again = parsed("--config", name)
        assert without_out(again) == without_out(first)


def test_options_of_the_command_line_win(tmp_path):
    first = parsed("--eeg.dim", "48", "--seed", "3", "--train.epochs", "7")
    write(tmp_path / "c.json", first)
    changed = parsed("--train.epochs", "2", "--config", "c.json", "--eeg.dim=32")
    assert (changed.train.epochs, changed.eeg.dim, changed.seed) == (2, 32, 3)


def test_paths_are_named_in_full_so_that_a_run_is_repeated_elsewhere(
    tmp_path, monkeypatch
):
    options = ("--text.source", "file", "--text.file", "t.csv", "--text.bert", "bert")
    first = parsed(*options, "--cache.folder", "../cache", "--teacher_run", "runs/a")
    write(tmp_path / "c.json", first)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = parsed("--config", "../c.json")
    assert again.text.file == str(tmp_path / "t.csv")
    assert again.text.bert == str(tmp_path / "bert")
    assert again.teacher_run == str(tmp_path / "runs/a")
    assert without_out(again) == without_out(first)


def test_an_older_run_with_paths_from_its_folder_goes_on_there(tmp_path):
    first = parsed("--text.source", "file", "--text.file", "t.csv")
    run = tmp_path / "run"
    record = write(run / "config.json", first)
    record["run"]["text"]["file"] = "t.csv"
    (run / "config.json").write_text(json.dumps(record))
    before = (run / "config.json").read_bytes()
    # Begun again by its command, and resumed by its own options.
    open_run(run, record_of(in_full(first)))
    old = from_json(type(first), record["run"])
    open_run(run, record_of(in_full(old)))
    assert (run / "config.json").read_bytes() == before
    other = dataclasses.replace(first, text=dataclasses.replace(first.text, file="u"))
    with pytest.raises(InputError, match="another `text`: file was .*t.csv, now .*u"):
        open_run(run, record_of(in_full(other)))


def test_options_that_an_older_version_lacks_are_named(tmp_path, caplog):
    first = parsed("--train.epochs", "7")
    record = write(tmp_path / "c.json", first)
    with caplog.at_level(logging.WARNING):
        parsed("--config", "c.json")
    assert not caplog.messages
    del record["run"]["train"]["labelled_share"], record["run"]["teacher_run"]
    (tmp_path / "c.json").write_text(json.dumps(record))
    with caplog.at_level(logging.WARNING):
        again = parsed("--config", "c.json")
    assert without_out(again) == without_out(first)
    (said,) = caplog.messages
    assert "c.json" in said
    assert "options train.labelled_share, teacher_run:" in said or (
        "options teacher_run, train.labelled_share:" in said
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"newer": 1}, "newer"),
        ({"seed": "three"}, "seed"),
        ({"rows": "linear"}, "rows"),
        ({"train": [1]}, "train"),
        ({"train": {"epochs": 2, "epoch": 3}}, "epoch"),
    ],
)
def test_what_is_no_option_is_named_with_the_file(tmp_path, change, said):
    first = parsed()
    record = write(tmp_path / "c.json", first, **change)
    with pytest.raises(InputError, match=said) as error:
        parsed("--config", "c.json")
    assert "c.json" in str(error.value)
    # The cure: the file as it was.
    record["run"] = to_json(first)
    (tmp_path / "c.json").write_text(json.dumps(record))
    assert without_out(parsed("--config", "c.json")) == without_out(first)


@pytest.mark.parametrize(
    "content", ["[]", '"run"', "3", "{}", '{"system": "dlink"}', "null", "", "{"]
)
def test_another_file_is_none_of_a_run(tmp_path, content):
    for name in ("card.json", "folder/config.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        with pytest.raises(InputError) as error:
            parsed("--config", name)
        assert name in str(error.value)
    with pytest.raises(InputError, match="missing.json"):
        parsed("--config", "missing.json")
