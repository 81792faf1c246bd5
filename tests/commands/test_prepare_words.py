"""What `prepare` says in words, and what `distill` needs that a store may lack."""

import pytest

from eegkd.cli import main
from eegkd.data.windows.folds import make_folds
from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from tests.support.folders import label, put

PREPARE = (
    *("--data.corpus", "folder", "--data.window_s", "4", "--data.band", "0.5", "40"),
    *("--data.rate", "100", "--data.workers", "1"),
)


@pytest.fixture
def said(capsys, tmp_path, monkeypatch):
    """Prepares a folder into a store; returns what was printed, on one line."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(root, *args):
        out = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        main(["prepare", *PREPARE, "--data.root", str(root), "--out", str(out), *args])
        return " ".join(capsys.readouterr().out.split()), out

    return run


def test_subjects_are_named(tmp_path, said):
    root = tmp_path / "mine"
    for i in range(10):
        put(root / f"person{i}" / "a.edf")
    label(root, "file,label\nperson0/a.edf,rest\nperson1/a.edf,task\n")
    text, _ = said(root)
    assert "10: person0, person1, person2, " in text
    assert "person7, ..." in text
    assert "person8" not in text


def test_nobody_named_is_told(tmp_path, said):
    put(tmp_path / "mine" / "a.edf")
    text, _ = said(tmp_path / "mine")
    assert "Nobody is named, so folds go by recording" in text


def test_markers_of_one_sample_are_no_classes(tmp_path, said):
    root = tmp_path / "mine"
    marks = [(0.5, 0.01, "S  1"), (1.5, 0.01, "S  2"), (1.6, 0.01, "S  1")]
    put(root / "a.edf", annotations=[*marks, (2.0, 0.01, "eyes open")])
    text, out = said(root)
    assert "no window of 4 s can have them: the annotations 'S 1', 'S 2', 'eye" in text
    assert "A label needs 2 s, and they last at most 0.01 s" in text
    store = WindowStore.open(out)
    assert store.classes == ()
    with pytest.raises(InputError, match="no labelled windows; training needs"):
        make_folds(store)
    # The cure: stretches in a table.
    label(root, "file,onset,duration,label\na.edf,0,4,rest\n")
    assert WindowStore.open(said(root)[1]).classes == ("background", "rest")


def test_many_short_events_may_label_a_window(tmp_path, said):
    root = tmp_path / "mine"
    marks = [(0.5 * i, 0.4, "spindle") for i in range(6)]
    put(root / "a.edf", annotations=[*marks, (5.0, 0.4, "K-complex")])
    text, out = said(root)
    assert WindowStore.open(out).classes == ("background", "spindle")
    assert "'K-complex'" in text


def test_classes_without_a_window_are_told_with_their_reason(tmp_path, said):
    root = tmp_path / "mine"
    put(root / "a.edf")
    put(root / "b.edf")
    rows = "file,onset,duration,label\na.edf,0,4,rest\na.edf,4.5,0.1,spike\n"
    label(root, rows + "b.edf,0,4,task\n")
    text, out = said(root)
    assert "No window has the class 'spike': the longest stretch is 0.1 s" in text
    assert "a window of 4 s needs 2 s. Lower --data.window_s" in text
    with pytest.raises(InputError, match="needs at least 3 recordings; folder has 2"):
        make_folds(WindowStore.open(out))
    text, out = said(root, "--data.window_s", "0.2")
    assert "No window has" not in text
    assert WindowStore.open(out).manifest["counts"]["classes"]["spike"] > 0


def test_many_classes_are_told_of_in_few_words(tmp_path, said):
    root = tmp_path / "mine"
    put(root / "a.edf")
    rows = (f"a.edf,{i / 20},0.05,c{i:02}\n" for i in range(40))
    label(root, "file,onset,duration,label\n" + "".join(rows))
    text, _ = said(root)
    assert "windows: c29 │ 0 │" in text
    assert "windows: 10 more classes │ 0 │" in text
    assert "the class 'c00', 'c01', 'c02', 'c03' and 36 more: the longest" in text
    assert "no labelled windows of c00, c01, " in text


@pytest.mark.parametrize("name", ["labels.xlsx", "a_events.tsv", "label.csv", "a.tse"])
def test_files_that_look_like_labels_are_named(tmp_path, said, name):
    root = tmp_path / "mine"
    put(root / "a.edf")
    label(root, "file,label\na.edf,rest\n", name)
    (root / "notes.txt").write_text("of no matter")
    text, _ = said(root)
    assert f"look like labels: '{name}'. Labels are read from labels.csv" in text
    assert "no labelled windows; training needs two classes" in text
    (root / name).rename(root / "labels.csv")
    text, _ = said(root)
    assert "look like labels" not in text


def test_one_class_is_nothing_to_tell_apart(tmp_path, said, capsys):
    root = tmp_path / "mine"
    for i in range(3):
        put(root / f"{i}.edf")
    label(root, "file,label\n" + "".join(f"{i}.edf,rest\n" for i in range(3)))
    text, out = said(root)
    assert "only class 'rest' of rest; training needs two classes" in text
    args = ("distill", "distilclip_eeg", "--store", str(out), "--out", "runs/none")
    assert main([*args, "--num_folds", "3"]) == 2
    assert "only class 'rest'" in capsys.readouterr().err


def test_help_names_the_option_that_decides(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--data.subject_from" in text
