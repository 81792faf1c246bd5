"""Where predictions go: whole names, sub-folders, and over nobody's files."""

import json
import os
from pathlib import Path

import pytest

from eegkd.deploy.inputs import Input, stem_of
from eegkd.deploy.outputs import choose_places, write_sidecar
from eegkd.errors import InputError


def given(path, folder="", member="", stem=None):
    path = Path(path)
    return Input(path, member, folder, stem or stem_of(path), lambda name: None)


def named(out, *inputs, kind="events"):
    return [place.name for place in choose_places(out, inputs, kind).of]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("rec/2024.03.01_anna.edf", "2024.03.01_anna"),
        ("rec/2024.03.02_ben.edf", "2024.03.02_ben"),
        ("a.b.c.hea", "a.b.c"),
        ("night.fif.gz", "night"),
        ("v1.2.night.FIF.GZ", "v1.2.night"),
        ("p2.EDF", "p2"),
        ("run.mff", "run"),
        ("no_suffix", "no_suffix"),
    ],
)
def test_a_name_is_whole_but_for_the_suffix(file, stem):
    (place,) = choose_places(Path("out"), [given(file)], "events").of
    assert place.name == stem
    assert place.table == Path("out", f"{stem}_events.tsv")
    assert place.sidecar == Path("out", f"{stem}_events.json")
    assert place.plot == Path("out", f"{stem}.png")


def test_names_that_are_shared_keep_their_suffix_or_their_folder():
    out = Path("out")
    assert named(out, given("a/p.edf"), given("b/p.edf")) == ["a/p", "b/p"]
    assert named(out, given("a/p.edf"), given("a/p.bdf")) == ["p.edf", "p.bdf"]
    assert named(out, given("a/x/p.edf"), given("b/x/p.edf"), given("q.edf")) == [
        "a/x/p",
        "b/x/p",
        "q",
    ]
    # Where letters' case does not count, these would be one file.
    assert named(out, given("a/P.edf"), given("b/p.edf")) == ["a/P", "b/p"]


def test_a_folders_recordings_keep_their_sub_folders():
    root = Path("mine").absolute()
    inputs = [
        given(root / x, folder=x.rpartition("/")[0]) for x in ("a/p.edf", "b/p.edf")
    ]
    assert named(Path("out"), *inputs) == ["a/p", "b/p"]
    joined = [given(root / "a_b.edf"), given(root / "a" / "b.edf", folder="a")]
    assert named(Path("out"), *joined) == ["a_b", "a/b"]


def test_people_of_one_file_have_names_of_their_own():
    inputs = [given("all.npz", member=x, stem=f"all_{x}") for x in ("1", "2")]
    assert named(Path("out"), *inputs) == ["all_1", "all_2"]
    same = [given("all.npz", member=x, stem="all_1") for x in ("1", "1 ")]
    assert len(set(named(Path("out"), *same))) == 2


def write(place, text="table"):
    place.table.parent.mkdir(parents=True, exist_ok=True)
    place.table.write_text(f"onset\tduration\n{text}")
    place.plot.write_bytes(b"plot")
    write_sidecar(place, (place.table, place.plot))


def test_another_recording_of_the_name_goes_beside_and_the_same_one_over_it():
    out = Path("out")
    for _ in range(2):
        for file, name in (("a/p.edf", "p"), ("b/p.edf", "p.edf"), ("c/p.edf", "c/p")):
            (place,) = choose_places(out, [given(file)], "events").of
            assert place.name == name
            write(place)
    first = json.loads((out / "p_events.json").read_text())
    assert first["Sources"] == ["../a/p.edf"]
    assert json.loads((out / "c/p_events.json").read_text())["Sources"] == [
        "../../c/p.edf"
    ]
    # Tables of windows are other files.
    assert named(out, given("d/p.edf"), kind="windows") == ["p"]


@pytest.mark.parametrize("name", ["p_events.tsv", "p.png", "p_events.json"])
def test_what_somebody_else_wrote_is_in_the_way(name):
    out = Path("out")
    out.mkdir()
    (out / name).write_text("{}")
    with pytest.raises(InputError, match=f"{name} is there already.*Move it") as error:
        choose_places(out, [given("a/p.edf")], "events")
    assert "choose another --out" in str(error.value)
    assert named(Path("other"), given("a/p.edf")) == ["p"]
    (out / name).rename(out / "mine")
    assert named(out, given("a/p.edf")) == ["p"]


def test_a_table_that_was_corrected_by_hand_is_kept():
    out = Path("out")
    (place,) = choose_places(out, [given("a/p.edf")], "events").of
    write(place)
    place.table.write_text("onset\tduration\nmine")
    with pytest.raises(InputError, match="p_events.tsv was changed since"):
        choose_places(out, [given("a/p.edf")], "events")
    place.table.unlink()
    os.symlink("elsewhere", place.table)
    with pytest.raises(InputError, match="p_events.tsv was changed since"):
        choose_places(out, [given("a/p.edf")], "events")


def test_a_name_too_long_for_a_suffix_is_cut_and_marked():
    long = "x" * 240
    first, second = choose_places(
        Path("out"), [given(f"{long}1.edf"), given(f"{long}2.edf")], "events"
    ).of
    assert len(first.table.name) < 220
    assert first.table != second.table
    first.table.parent.mkdir()
    first.table.write_text("")


def test_a_name_that_is_no_text_is_written():
    file = os.fsdecode(b"caf\xe9.edf")
    (place,) = choose_places(Path("out"), [given(file)], "events").of
    write(place)
    assert choose_places(Path("out"), [given(file)], "events").of == (place,)
