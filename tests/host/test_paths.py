"""Paths among options, which hold from anywhere."""

import dataclasses
from pathlib import Path

import pytest

from eegkd.config import run_config
from eegkd.data.config import DataConfig
from eegkd.host.paths import PathText, in_full
from eegkd.systems.distilclip_eeg.config import DistilClipConfig


@dataclasses.dataclass(frozen=True)
class Inner:
    file: PathText = ""
    name: str = "no path"


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    out: str = "runs/a"
    root: PathText = ""
    number: int = 3


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "house").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "house"))
    monkeypatch.chdir(tmp_path)


def test_what_a_run_reads_is_named_in_full_and_what_it_writes_is_not(tmp_path):
    found = in_full(Outer(Inner("x", "y"), root="~/c"))
    assert found.inner == Inner(f"{tmp_path}/x", "y")
    assert (found.out, found.root) == ("runs/a", f"{tmp_path}/house/c")
    assert in_full(found) is found
    plain = Outer()
    assert in_full(plain) is plain


def test_every_path_of_a_run_is_one():
    options = run_config(DistilClipConfig)()
    text = dataclasses.replace(options.text, file="t.csv", bert="bert")
    cache = dataclasses.replace(options.cache, folder="c", given="g")
    data = DataConfig(root="d")
    changes = {"text": text, "cache": cache, "data": data}
    full = in_full(dataclasses.replace(options, store="s", teacher_run="t", **changes))
    for path in (
        *(full.text.file, full.text.bert, full.cache.folder, full.cache.given),
        *(full.data.root, full.store, full.teacher_run),
    ):
        assert Path(path).is_absolute(), path
    assert full.out == ""
