"""A BIDS data set whose tables are damaged, or contradict each other."""

import pytest

from eegkd.errors import InputError
from tests.support.bids import (
    make,
    put_events,
    put_json,
    put_table,
    read_all,
    read_one,
    spans,
)

HEAD = "onset\tduration\ttrial_type\n"
READABLE = {
    "windows": (HEAD + "1\t4\tdébut\n").replace("\n", "\r\n").encode(),
    "mac": (HEAD + "1\t4\tdébut\n").replace("\n", "\r").encode(),
    "byte order mark": b"\xef\xbb\xbf" + (HEAD + "1\t4\tdébut\n").encode(),
    "utf-16": (HEAD + "1\t4\tdébut\n").encode("utf-16"),
    "spreadsheet": (HEAD + '\n 1 \t4\t"début"\t\t\n\n').encode(),
    "no last line end": (HEAD + "1\t4\tdébut").encode(),
    "twice, and no time": (HEAD + "1\t4\tdébut\n" * 2 + "n/a\tn/a\tend\n").encode(),
}
REFUSED = {
    "latin-1": (
        (HEAD + "1\t4\tdébut\n").encode("latin-1"),
        "line 2: not UTF-8.*iconv",
    ),
    "empty": (b"", r"no column onset \(its first line has: nothing\)"),
    "commas": (HEAD.replace("\t", ",").encode(), "no column onset"),
    "no duration": (b"onset\ttrial_type\n1\ta\n", "no column duration"),
    "two onsets": (
        b"onset\tduration\tonset\n1\t2\t3\n",
        "two columns are called 'onset'",
    ),
    "few cells": ((HEAD + "1\t4\n").encode(), "line 2: 2 cells for 3 columns"),
    "more cells": ((HEAD + "1\t4\ta\tb\n").encode(), "line 2: 4 cells for 3 columns"),
    "decimal comma": ((HEAD + "1,5\t4\ta\n").encode(), "line 2: onset is '1,5'"),
    "python's number": ((HEAD + "1_0\t4\ta\n").encode(), "line 2: onset is '1_0'"),
    "nul": ((HEAD + "1\t4\ta\0b\n").encode(), "line 2: a NUL byte"),
    "infinite": ((HEAD + "1\tinf\ta\n").encode(), "line 2: duration is 'inf'"),
    "negative": (
        (HEAD + "1\t-4\ta\n").encode(),
        "line 2: the duration -4 s is below 0",
    ),
    "two labels": (
        (HEAD + "1\t4\ta\n1\t4\tb\n").encode(),
        "lines 2 and 3: 'a' and 'b'",
    ),
    "too long": ((HEAD + "19\t4\ta\n").encode(), r"line 2: 'a' at 19 s .*\(20 s\)"),
    "too late": ((HEAD + "400\t0\tBAD_x\n").encode(), "line 2: 'BAD_x' at 400 s"),
    "case": ((HEAD + "1\t4\tLeft\n8\t4\tleft\n").encode(), "'Left' and 'left' mean"),
    "space": ((HEAD + "1\t4\tgo_on\n8\t4\tgo on\n").encode(), "'go on' and 'go_on'"),
    "points": (
        (HEAD + "1\t0\ta\n5\tn/a\tb\n").encode(),
        "no event is long enough",
    ),
    "short": ((HEAD + "1\t0.01\ta\n5\t0.01\tb\n").encode(), "no event is long enough"),
}


def put_bytes(recording, data):
    name = recording.name.rpartition("_")[0] + "_events.tsv"
    recording.with_name(name).write_bytes(data)


@pytest.mark.parametrize("name", READABLE)
def test_tables_of_other_programs_are_read(tmp_path, name):
    put_bytes(make(tmp_path), READABLE[name])
    _, recording = read_one(tmp_path, classes=("début",))
    assert set(spans(recording)) == {(1, 4, "début")}


@pytest.mark.parametrize("name", REFUSED)
def test_events_that_cannot_be_are_refused(tmp_path, name):
    data, words = REFUSED[name]
    put_bytes(make(tmp_path), data)
    with pytest.raises(InputError, match=words):
        read_all(tmp_path)


def test_a_label_that_no_column_has_is_refused(tmp_path):
    put_events(make(tmp_path), (1, 4, "a"))
    with pytest.raises(
        InputError, match="--data.label group: no column.*events: trial"
    ):
        read_all(tmp_path, label="group")
    people = tmp_path / "participants.tsv"
    put_table(people, ("participant_id", "trial_type"), ("sub-02", 1))
    with pytest.raises(
        InputError, match=r"Say which: --data\.label events\.trial_type"
    ):
        read_all(tmp_path, label="trial_type")
    assert read_one(tmp_path, label="events.trial_type")[0].classes[-1] == "a"
    with pytest.raises(InputError, match=r"participants\.tsv: no row of sub-01"):
        read_all(tmp_path, label="participants.trial_type")
    with pytest.raises(InputError, match="--data.classes b: .* Choose of a"):
        read_all(tmp_path, classes=("b",))


def test_rows_of_one_person_must_agree(tmp_path):
    make(tmp_path)
    people, head = tmp_path / "participants.tsv", ("participant_id", "group")
    put_table(people, head, ("sub-01", "a"), ("sub-01", "a"))
    assert spans(read_one(tmp_path, label="group")[1]) == [(0, 20, "a")]
    put_table(people, head, ("sub-01", "a"), ("sub-01", "b"))
    with pytest.raises(InputError, match="lines 2 and 3: sub-01 is 'a' and 'b'"):
        read_all(tmp_path, label="group")


def test_a_column_that_one_table_lacks_is_named(tmp_path):
    put_events(make(tmp_path), (1, 4, "a"))
    other = make(tmp_path, "sub-02_task-y_eeg.edf")
    put_events(other, (1, 4, "7"), columns=("onset", "duration", "value"))
    with pytest.raises(InputError, match=r"sub-02_task-y_events\.tsv: no column trial"):
        read_all(tmp_path)
    assert len(read_all(tmp_path, entities=("task-x",))[1]) == 1


def test_events_without_onset_are_told(tmp_path):
    put_events(make(tmp_path), ("n/a", 4, "a"), (7, 4, "b"), ("n/a", "n/a", "n/a"))
    corpus, recordings = read_all(tmp_path)
    # One label would stand against a background; of "a" nobody knows where it is.
    assert (corpus.classes, corpus.background) == (("a", "b"), None)
    (note,) = corpus.notes
    assert note.startswith("1 events have a label and no onset")
    assert note.endswith("sub-01_task-x_events.tsv, line 2).")
    assert [spans(r) for r in recordings.values()] == [[(7, 4, "b")]]


def test_sessions_label_recordings_of_sessions_alone(tmp_path):
    make(tmp_path)
    table = tmp_path / "sub-01" / "sub-01_sessions.tsv"
    put_table(table, ("session_id", "drug"), ("ses-1", "yes"))
    with pytest.raises(InputError, match="its name has no ses-"):
        read_all(tmp_path, label="drug")


def test_trials_need_events(tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match="--data.trials takes a window from every"):
        read_all(tmp_path, trials=True)


def test_two_classes_of_one_onset_are_no_trial(tmp_path):
    put_events(make(tmp_path), (1, 0, "go"), (1, 0.5, "press"), (9, 0, "go"))
    with pytest.raises(InputError, match=r"lines 2 and 3: 'go' and 'press' at 1 s"):
        read_all(tmp_path, trials=True)
    _, recording = read_one(tmp_path, trials=True, classes=("go",), window_s=2.0)
    assert spans(recording) == [(1, 2, "go"), (9, 2, "go")]


def test_what_is_lacking_is_told(tmp_path):
    put_events(make(tmp_path), (1, 4, "a"), (7, 4, "b"), (12, 0, "c"))
    corpus, _ = read_all(tmp_path)
    assert [note for note in corpus.notes if "'c', which last at most 0 s" in note]
    put_json(tmp_path / "events.json", trial_type={"Levels": {"a": "one", "d": "two"}})
    put_table(tmp_path / "participants.tsv", ("participant_id",), ("sub-02",))
    scans = tmp_path / "sub-01" / "sub-01_scans.tsv"
    here, lost = (f"eeg/sub-01_task-{task}_eeg.edf" for task in "xy")
    put_table(scans, ("filename",), (here,), (lost,), ("anat/sub-01_T1w.nii",))
    text = "\n".join(read_all(tmp_path, classes=("a",))[0].notes)
    assert "Levels of trial_type in events.json name 'a', 'd', and not 'b', 'c'" in text
    assert "participants.tsv has no row of sub-01" in text
    assert f"scans.tsv names them: {lost}." in text
    assert text.count("\n") == 2
    make(tmp_path, "sub-02_task-z_eeg.edf")
    (note,) = read_all(tmp_path, entities=("task-z",))[0].notes
    assert "nothing is labelled" in note
