"""A BIDS data set: who, what and when its tables say."""

import dataclasses

import pytest

from eegkd.data import DataConfig, get_corpus
from eegkd.data.recordings.recording import Span
from eegkd.data.windows.prepare import make_plan, prepare
from eegkd.errors import InputError
from tests.support.bids import (
    make,
    put_channels,
    put_dataset,
    put_events,
    put_recording,
    put_table,
    read_all,
    read_one,
    spans,
)


def test_people_sessions_and_events(tmp_path):
    put_dataset(tmp_path, License="CC0")
    for name in ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a"):
        file = put_recording(tmp_path, f"{name}_task-x_run-1_eeg.edf")
        put_events(file, (8.5, 4, "right"), (1, 4, "left"), (15, 2, "n/a"))
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("left", "right")
    assert (corpus.background, corpus.licence) == (None, "CC0")
    people = [(r.subject, r.session) for r in recordings.values()]
    assert people == [("01", "a"), ("01", "b"), ("02", "a")]
    assert all(
        spans(r) == [(1, 4, "left"), (8.5, 4, "right")] for r in recordings.values()
    )
    assert corpus.has_subjects
    ids = [s.recording_id for s in corpus.list_sources(tmp_path)]
    assert ids[0] == "sub-01/ses-a/eeg/sub-01_ses-a_task-x_run-1_eeg.edf"


def test_windows_of_a_data_set(tmp_path):
    file = make(tmp_path / "bids")
    put_events(file, (0, 8, "left"), (8, 8, "right"), (9, 1, "BAD_blink"))
    config = DataConfig(
        corpus="bids", root=str(tmp_path / "bids"), band=(0.5, 40.0), workers=1
    )
    store = prepare(config, tmp_path / "store", progress=False)
    assert store.labels.tolist() == [0, 0, -1, 1, -1]
    assert store.manifest["classes"] == ["left", "right"]
    own = {"label", "classes", "entities", "trials"}
    assert own <= store.manifest["preprocessing"].keys()
    assert prepare(config, tmp_path / "store", progress=False).path == store.path
    # Stores of other corpora keep their hashes: they know nothing of these options.
    other = make_plan(dataclasses.replace(config, corpus="folder"))
    assert not own & other.settings.keys()
    changed = dataclasses.replace(config, classes=("left", "right"))
    with pytest.raises(InputError, match="holds a store with classes="):
        prepare(changed, tmp_path / "store", progress=False)
    put_events(file, (0, 8, "left"), (8, 9, "right"))
    with pytest.raises(InputError, match="made from other recordings or labels"):
        prepare(config, tmp_path / "store", progress=False)


def test_one_timed_label_stands_against_the_background(tmp_path):
    file = make(tmp_path)
    put_events(file, (5, 10, "seizure"))
    other = put_recording(tmp_path, "sub-02_task-x_eeg.edf")
    put_table(other.with_name("sub-02_task-x_events.tsv"), ("onset", "duration"))
    put_recording(tmp_path, "sub-03_task-x_eeg.edf")
    corpus, recordings = read_all(tmp_path)
    assert (corpus.classes, corpus.background) == (
        ("background", "seizure"),
        "background",
    )
    got = [spans(r) for r in recordings.values()]
    # Without a table, nobody has looked for seizures; a table without rows has none.
    assert got == [[(5, 10, "seizure")], [], [(0, 20, "unlabelled")]]


SZCORE = (
    *("onset", "duration", "eventType", "confidence", "channels"),
    *("dateTime", "recordingDuration"),
)


def test_szcore_tables_are_read(tmp_path):
    first, second = (make(tmp_path, f"sub-0{i}_task-x_eeg.edf") for i in (1, 2))
    rest = ("2020-01-01 00:00:00", "20.00")
    put_events(
        first,
        (2, 5, "sz_foc_ia", 0.9, "Fz,Cz", *rest),
        (9, 4, "sz", "n/a", "all", *rest),
        columns=SZCORE,
    )
    put_events(second, (0, 20, "bckg", "n/a", "n/a", *rest), columns=SZCORE)
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("background", "sz", "sz_foc_ia")
    corpus, recordings = read_all(tmp_path, classes=("background", "sz"))
    assert (corpus.classes, corpus.background) == (("background", "sz"), "background")
    events = [r.events for r in recordings.values()]
    assert spans(recordings["sub-01_task-x_eeg.edf"]) == [(2, 5, "sz"), (9, 4, "sz")]
    assert [e.channels for e in events[0]] == [("Fz", "Cz"), ()]
    assert events[1] == ()


@pytest.mark.parametrize("both", [False, True])
def test_tables_that_predict_writes_are_read_back(tmp_path, both):
    from eegkd.evaluate.events import Detection
    from eegkd.evaluate.szcore import write_szcore_tsv

    file = make(tmp_path)
    table = file.with_name("sub-01_task-x_events.tsv")
    write_szcore_tsv(
        table, [Detection(3.25, 12.5, 0.75)], duration_s=20.0, trial_type=both
    )
    assert spans(read_one(tmp_path)[1]) == [(3.25, 12.5, "sz")]
    write_szcore_tsv(table, [], duration_s=20.0, trial_type=both)
    corpus, recording = read_one(tmp_path)
    assert (corpus.classes, spans(recording)) == (("background",), [])


def test_values_label_where_no_trial_type_does(tmp_path):
    file = make(tmp_path)
    columns = ("onset", "duration", "trial_type", "value", "stim_file", "HED")
    put_events(
        file,
        (1, 4, "n/a", "2.0", "a.png", "Event"),
        (7, 4, "n/a", "10", "n/a", "(Red, Blue)"),
        columns=columns,
    )
    corpus, recording = read_one(tmp_path)
    assert corpus.classes == ("10", "2")
    assert spans(recording) == [(1, 4, "2"), (7, 4, "10")]


def test_another_column_of_events_may_label(tmp_path):
    file = make(tmp_path)
    columns = ("onset", "duration", "trial_type", "stage")
    put_events(file, (0, 8, "a", "N2"), (8, 8, "a", "REM"), columns=columns)
    for option in ("stage", "events.stage"):
        corpus, recording = read_one(tmp_path, label=option)
        assert corpus.classes == ("N2", "REM")
        assert spans(recording) == [(0, 8, "N2"), (8, 8, "REM")]


def test_people_may_be_labelled_by_their_row(tmp_path):
    for person in ("01", "02", "03"):
        file = make(tmp_path, f"sub-{person}_task-x_eeg.edf")
        put_events(file, (0, 1, "go"), (3, 2, "BAD_move"))
    put_table(
        tmp_path / "participants.tsv",
        ("participant_id", "age", "group"),
        ("sub-02", 40, "patient"),
        ("01", 41, "control"),
        ("sub-03", 42, "n/a"),
        ("sub-04", 43, "patient"),
    )
    corpus, recordings = read_all(tmp_path, label="group")
    assert (corpus.classes, corpus.background) == (("control", "patient"), None)
    assert [spans(r) for r in recordings.values()] == [
        *([(0, 20, "control")], [(0, 20, "patient")], [])
    ]
    bad = Span(onset_s=3, duration_s=2, reason="BAD_move")
    assert all(r.bad_spans == (bad,) for r in recordings.values())


def test_sessions_scans_and_tasks_may_label_too(tmp_path):
    put_dataset(tmp_path)
    for session in ("pre", "post"):
        for task in ("open", "closed"):
            put_recording(tmp_path, f"sub-01_ses-{session}_task-{task}_eeg.edf")
        put_table(
            tmp_path / f"sub-01/ses-{session}/sub-01_ses-{session}_scans.tsv",
            ("filename", "state"),
            (f"eeg/sub-01_ses-{session}_task-open_eeg.edf", "calm"),
            (f"eeg/sub-01_ses-{session}_task-closed_eeg.edf", "n/a"),
        )
    put_table(
        tmp_path / "sub-01/sub-01_sessions.tsv",
        ("session_id", "drug"),
        *(("ses-pre", "no"), ("ses-post", "yes")),
    )

    def labels(**options):
        _, recordings = read_all(tmp_path, **options)
        return [[e.label for e in r.events] for r in recordings.values()]

    assert labels(label="task") == [["closed"], ["open"]] * 2
    assert labels(label="drug") == [["yes"], ["yes"], ["no"], ["no"]]
    assert labels(label="scans.state") == [[], ["calm"]] * 2
    assert labels(label="task", entities=("ses-pre", "task-open")) == [["open"]]


def test_classes_that_are_wanted_leave_the_rest_unlabelled(tmp_path):
    file = make(tmp_path)
    put_events(file, (1, 4, "sz"), (7, 4, "artefact"), (12, 0, "button"))
    corpus, recording = read_one(tmp_path, classes=("sz",))
    assert (corpus.classes, corpus.background) == (("background", "sz"), "background")
    assert spans(recording) == [(1, 4, "sz"), (7, 4, "unlabelled")]
    corpus, recording = read_one(tmp_path, classes=("sz", "artefact"))
    assert (corpus.classes, corpus.background) == (("sz", "artefact"), None)
    assert spans(recording) == [(1, 4, "sz"), (7, 4, "artefact")]


def test_an_event_of_unknown_duration_is_not_background(tmp_path):
    file = make(tmp_path)
    put_events(file, (1, 4, "sz"), (7, "n/a", "sz"), (12, 2, "sz"), (17, "n/a", "sz"))
    assert spans(read_one(tmp_path)[1]) == [
        *((1, 4, "sz"), (7, 5, "unlabelled"), (12, 2, "sz"), (17, 3, "unlabelled"))
    ]


def test_events_without_duration_are_trials_if_wanted(tmp_path):
    file = make(tmp_path)
    put_events(file, (1, 0, "odd"), (1.5, "n/a", "even"), (2, 0, "odd"), (19, 0, "odd"))
    with pytest.raises(
        InputError, match=r"no event.* long enough.*--data\.trials True"
    ):
        read_one(tmp_path)
    corpus, recording = read_one(tmp_path, trials=True, window_s=2.0)
    assert corpus.trials
    assert (corpus.classes, corpus.background) == (("even", "odd"), None)
    assert [d for _, d, _ in spans(recording)] == [2, 2, 2, 2]
    config = DataConfig(
        **{"corpus": "bids", "root": str(tmp_path), "band": (0.5, 40.0)},
        **{"window_s": 2.0, "trials": True, "workers": 1},
    )
    store = prepare(config, tmp_path.with_name("trials-store"), progress=False)
    # Each window has the class of its own event, though others begin inside it.
    assert store.index["start_s"].tolist() == [1, 1.5, 2]
    assert store.labels.tolist() == [1, 0, 1]


def test_channels_that_are_bad_somewhere_are_left_out_or_filled_in(tmp_path):
    for person, status in (("01", "good"), ("02", "bad")):
        file = make(tmp_path / "bids", f"sub-{person}_task-x_eeg.edf")
        put_events(file, (0, 8, "left"), (8, 8, "right"))
        put_channels(file, ("Fz", "EEG", "uV", "good"), ("Cz", "EEG", "uV", status))
    config = DataConfig(
        corpus="bids", root=str(tmp_path / "bids"), band=(0.5, 40.0), workers=1
    )
    with pytest.raises(InputError, match=r"all that are wanted.*bad \(Cz\).*or mask"):
        prepare(config, tmp_path / "store", progress=False)
    wanted = dataclasses.replace(config, channels=("Fz", "Cz"), policy="mask")
    store = prepare(wanted, tmp_path / "filled", progress=False)
    filled = [r["filled_channels"] for r in store.manifest["recordings"].values()]
    assert filled == [[], ["Cz"]]
    shared = dataclasses.replace(config, channels=("Fz",))
    assert len(prepare(shared, tmp_path / "shared", progress=False)) == 10


def test_a_folder_that_is_a_data_set_is_told_apart(tmp_path):
    put_events(make(tmp_path), (0, 8, "left"), (8, 8, "right"))
    (note,) = [x for x in get_corpus("folder", tmp_path).notes if "BIDS" in x]
    assert "--data.corpus bids reads it with them" in note
    assert get_corpus("bids", tmp_path).classes == ("left", "right")
    (tmp_path / "dataset_description.json").unlink()
    assert not [x for x in get_corpus("folder", tmp_path).notes if "BIDS" in x]


def test_recordings_to_predict_on_need_no_labels_that_last(tmp_path):
    put_events(make(tmp_path), (1, 0, "odd"), (3, "n/a", "even"))
    # As `predict` asks: whatever labels there are is of no matter.
    corpus, recording = read_one(tmp_path, subject_from="none", window_s=1 / 100)
    assert (corpus.classes, spans(recording)) == (("even", "odd"), [])
