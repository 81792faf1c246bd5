import numpy as np
import pytest

from eegkd.data import DataConfig, get_corpus
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError
from tests.support.edf import write_edf
from tests.support.folders import label, noise, put, read_all, spans
from tests.support.real import real


def test_labels_of_whole_recordings(tmp_path):
    for name in ("a", "b", "c"):
        put(tmp_path / f"{name}.edf")
    label(tmp_path, "file,subject,label\na.edf,anna,rest\nb.edf,ben,go\n")
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("go", "rest")
    assert corpus.background is None
    assert spans(recordings["a.edf"]) == [(0, 6, "rest")]
    assert spans(recordings["c.edf"]) == []
    assert recordings["a.edf"].subject == "anna"
    # Nobody is named for c.edf: it is a group of its own, and the others keep theirs.
    assert corpus.has_subjects
    assert recordings["c.edf"].subject == "c.edf"


def test_one_timed_label_stands_against_the_background(tmp_path):
    put(tmp_path / "a.edf")
    put(tmp_path / "b.edf")
    text = "file,onset,duration,label\na.edf,3,1.5,seizure\na.edf,1,1,seizure\n"
    label(tmp_path, text)
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("background", "seizure")
    assert corpus.background == "background"
    want = [(1, 1, "seizure"), (3, 1.5, "seizure")]
    assert spans(recordings["a.edf"]) == want
    # Nobody said that b.edf is free of seizures.
    assert spans(recordings["b.edf"]) == [(0, 6, "unlabelled")]
    label(tmp_path, text + "b.edf,,,background\n")
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("background", "seizure")
    assert spans(recordings["b.edf"]) == []


def test_one_label_may_name_several_classes(tmp_path):
    for name in "abcde":
        put(tmp_path / f"{name}.edf")
    text = "file,onset,duration,label\na.edf,,,AF; RBBB\nb.edf,2,2.5,AF\nc.edf,,,;\n"
    label(tmp_path, text + "d.edf,,,background\na.edf,1,2,unlabelled\n")
    corpus, recordings = read_all(tmp_path)
    assert (corpus.classes, corpus.background) == (("AF", "RBBB"), None)
    assert corpus.multilabel
    assert sorted(spans(recordings["a.edf"])) == [
        *((0, 6, "AF"), (0, 6, "RBBB"), (1, 2, "unlabelled"))
    ]
    assert spans(recordings["b.edf"]) == [(2, 2.5, "AF")]
    assert spans(recordings["c.edf"]) == spans(recordings["d.edf"]) == []
    # Nobody was asked about e.edf.
    assert spans(recordings["e.edf"]) == [(0, 6, "unlabelled")]
    config = DataConfig(
        **{"corpus": "folder", "root": str(tmp_path), "band": (0.5, 40.0)},
        **{"window_s": 2.0, "zscore": "none", "workers": 1},
    )
    store = prepare(config, tmp_path.with_name("labels-store"), progress=False)
    rows = {
        name: store.labels[store.index["recording_id"] == f"{name}.edf"].tolist()
        for name in "abcde"
    }
    assert rows["a"] == [[1, 1]] * 3
    assert rows["b"] == [[0, 0], [1, 0], [0, 0]]
    assert rows["c"] == rows["d"] == [[0, 0]] * 3
    assert rows["e"] == [[-1, -1]] * 3


def test_several_timed_labels_leave_the_rest_unlabelled(tmp_path):
    put(tmp_path / "a.edf")
    rows = "a.edf,0,1,left\na.edf,2,1,right\n"
    label(tmp_path, "file,onset,duration,label\n" + rows)
    corpus, _ = read_all(tmp_path)
    assert (corpus.classes, corpus.background) == (("left", "right"), None)
    label(tmp_path, "file,onset,duration,label\n" + rows + "a.edf,4,1,background\n")
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("background", "left", "right")
    assert [e.label for e in recordings["a.edf"].events] == ["left", "right"]


def test_a_byte_order_mark_spaces_and_quotes_are_no_matter(tmp_path):
    put(tmp_path / "x, y.edf")
    text = '\ufefffile, onset, duration, label\n"x, y.edf", 1, 2, spike\n'
    label(tmp_path, text)
    (tmp_path / "labels.csv").write_text(text.replace(", onset", ",onset"), "utf-8")
    _, recordings = read_all(tmp_path)
    assert spans(recordings["x, y.edf"]) == [(1, 2, "spike")]


def test_subjects_come_from_bids_words_or_sub_folders(tmp_path):
    put(tmp_path / "sub-03" / "ses-2" / "eeg" / "sub-03_ses-2_task-x_eeg.edf")
    put(tmp_path / "patient7" / "night.edf")
    corpus, recordings = read_all(tmp_path)
    assert corpus.has_subjects
    people = {(r.subject, r.session) for r in recordings.values()}
    assert people == {("03", "2"), ("patient7", "")}


def test_without_labels_lasting_annotations_are_the_labels(tmp_path):
    marks = [(0.5, 2.0, "left"), (3.0, 2.0, "right"), (1.0, 0.0, "blink")]
    put(tmp_path / "a.edf", annotations=marks)
    put(tmp_path / "b.edf")
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("left", "right")
    assert spans(recordings["a.edf"]) == [(0.5, 2, "left"), (3, 2, "right")]
    assert spans(recordings["b.edf"]) == []


def test_a_folder_without_any_label_is_unlabelled(tmp_path):
    put(tmp_path / "a.edf")
    corpus, recordings = read_all(tmp_path)
    assert (corpus.classes, corpus.background) == ((), None)
    assert spans(recordings["a.edf"]) == []


def test_the_unit_option_reaches_the_reader(tmp_path):
    write_edf(
        tmp_path / "a.edf", noise() / 1e6, ["Fz", "Cz"], dimension="", physical_max=1e-3
    )
    _, recordings = read_all(tmp_path, unit="V")
    np.testing.assert_allclose(recordings["a.edf"].signal, noise(), atol=0.1)
    with pytest.raises(InputError, match=r"a\.edf: channel Fz .*--data\.unit"):
        read_all(tmp_path)


HEAD = "file,subject,onset,duration,label\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,lable\na.edf,x\n", r"labels\.csv: unknown column 'lable'"),
        ("file,onset,duration\na.edf,1,2\n", r"labels\.csv: no column label"),
        ("label\nx\n", r"labels\.csv: no column file"),
        (HEAD + "a.edf,s,1,2,\n", r"line 2: the label is empty"),
        (HEAD + "a.edf,s,1,,x\n", r"line 2: give both onset and duration"),
        (HEAD + "a.edf,s,-1,2,x\n", r"line 2: onset '-1'"),
        (HEAD + "a.edf,s,1,0,x\n", r"line 2: duration '0'"),
        (HEAD + "a.edf,s,nan,2,x\n", r"line 2: onset 'nan'"),
        (HEAD + "a.edf,s,1:30,2,x\n", r"line 2: onset '1:30'"),
        (HEAD + "a.edf,s,1,2,x\nc.edf,s,1,2,x\n", r"line 3: no recording 'c\.edf'"),
        (HEAD + "c.edf,s,1,2,x\n", r"belongs to other recordings"),
        (HEAD + "a.edf,s,1,2\n", r"line 2: not as many cells"),
        (HEAD + "a.edf,s,1,2,x,y\n", r"line 2: not as many cells"),
        (
            HEAD + "a.edf,s,1,2,x\na.edf,t,3,1,x\n",
            r"a\.edf is of subject s .* and of t",
        ),
        (HEAD + "a.edf,s,4,9,x\n", r"labels\.csv, line 2: .*a\.edf does \(6 s\)"),
        (
            HEAD + "a.edf,s,400,9,x\n",
            r"labels\.csv, line 2: 'x' at 400 s .* are these its labels",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, text, words):
    put(tmp_path / "a.edf")
    label(tmp_path, text)
    with pytest.raises(InputError, match=words):
        read_all(tmp_path)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match="no recording in it"):
        get_corpus("folder", tmp_path)
    with pytest.raises(InputError, match="--data.root"):
        get_corpus("folder")
    with pytest.raises(InputError, match="is no folder"):
        get_corpus("folder", tmp_path / "absent")


def test_real_motor_imagery_folder_takes_its_annotations():
    corpus, recordings = read_all(real("mi_eegmmidb"))
    assert corpus.classes == ("T0", "T1", "T2")
    events = recordings["S001R04.edf"].events
    assert len(events) == 30
    assert events[1].duration_s == pytest.approx(4.1)


def test_real_formats_that_are_recordings_are_all_found():
    names = {
        s.path.name
        for s in get_corpus("folder", real("formats")).list_sources(real("formats"))
    }
    assert {"MB0400FU.EDF", "test_1ch.gdf", "eeglab_data.set", "test.bdf"} <= names
    assert not any(name.endswith((".dat", ".fdt", ".locs")) for name in names)
