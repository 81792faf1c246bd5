import time

import pytest

from eegkd.data import DataConfig
from eegkd.data.folders.labels import read_labels
from eegkd.data.folders.names import labels_alike, person_key
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError
from tests.support.folders import label, put, read_all, spans

HEAD = "file,subject,onset,duration,label\n"


def refused(root, words, **options):
    with pytest.raises(InputError, match=words):
        read_all(root, **options)


@pytest.fixture
def one(tmp_path):
    put(tmp_path / "a.edf")
    return tmp_path


ROW = (2.5, 3.0, "seizure")
TABLES = {
    "utf-8": (HEAD + "a.edf,Müller,2.5,3,seizure\n").encode(),
    "mark": (HEAD + "a.edf,Müller,2.5,3,seizure\n").encode("utf-8-sig"),
    "utf-16": (HEAD + "a.edf,Müller,2.5,3,seizure\n").encode("utf-16"),
    "big-endian": ("\ufeff" + HEAD + "a.edf,Müller,2.5,3,seizure\n").encode(
        "utf-16-be"
    ),
    "unicode text": (HEAD + "a.edf,Müller,2.5,3,seizure\n")
    .replace(",", "\t")
    .encode("utf-16"),
    "semicolons": (
        HEAD.replace(",", ";") + "a.edf;Müller;2,5;3,0;seizure\r\n"
    ).encode(),
    "tabs": (HEAD + "a.edf,Müller,2.5,3,seizure\n").replace(",", "\t").encode(),
    "old Mac": (HEAD + "a.edf,Müller,2.5,3,seizure\n").replace("\n", "\r").encode(),
    "cleared rows": (
        HEAD + "a.edf,Müller,2.5,3,seizure\n,,,,\n , ,,,\n\n,,,,\n"
    ).encode(),
    "cleared columns": b"file,subject,onset,duration,label,,\n"
    + "a.edf,Müller,2.5,3,seizure,,\n".encode(),
    "capitals": (HEAD.title() + "a.edf,Müller,2.5,3,seizure\n").encode(),
    "n/a": (HEAD + "a.edf,Müller,2.5,3,seizure\na.edf,n/a,0,1,unlabelled\n").encode(),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_spreadsheets_save_it(one, name):
    (one / "labels.csv").write_bytes(TABLES[name])
    corpus, recordings = read_all(one)
    assert corpus.classes == ("background", "seizure")
    assert ROW in spans(recordings["a.edf"])
    assert recordings["a.edf"].subject == "Müller"


def test_a_table_in_another_code_is_refused_and_the_cure_works(one):
    text = HEAD + "a.edf,Müller,2.5,3,seizure\n"
    (one / "labels.csv").write_bytes(text.encode("cp1252"))
    refused(one, r"labels\.csv, line 2: not in UTF-8 .*CSV UTF-8")
    (one / "labels.csv").write_bytes(text.replace("ü", "u").encode("utf-16-le"))
    refused(one, r"line 1: a NUL byte.*CSV UTF-8")
    (one / "labels.csv").write_bytes(text.encode("utf-8-sig"))
    assert spans(read_all(one)[1]["a.edf"]) == [ROW]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a.edf,s,1,2," + "x" * 200_000, r"line 2: no row of a table .*double quote"),
        ('a.edf,s,1,2,"x\na.edf,s,3,1,y\n', r"line 3: a cell goes over several lines"),
        ("a.edf,s,1,2,x\0y\n", r"line 2: a NUL byte"),
        ('a.edf,s,"1,5",2,x\n', r"line 2: onset '1,5' .*onset 12\.5"),
        ("a.edf,s,1,2,x,y\n", r"line 2: not as many cells"),
        ("a.edf,s,1,2,n/a\n", r"line 2: the label is empty"),
        ("a.edf,s,1,2,NaN\n", r"line 2: the label is empty"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(one, rows, words):
    label(one, HEAD + rows)
    refused(one, words)


def test_a_table_is_found_whatever_its_case(one):
    label(one, "file,label\na.edf,rest\n", "Labels.CSV")
    corpus, recordings = read_all(one)
    assert corpus.classes == ("rest",)
    assert spans(recordings["a.edf"]) == [(0, 6, "rest")]
    label(one, "file,label\na.edf,task\n")
    refused(one, r"holds Labels\.CSV and labels\.csv")
    (one / "Labels.CSV").unlink()
    assert read_all(one)[0].classes == ("task",)


def test_a_table_that_is_no_file_is_refused(one):
    (one / "labels.csv").symlink_to("gone.csv")
    refused(one, r"labels\.csv is a link to gone\.csv, which is not there")
    (one / "labels.csv").unlink()
    (one / "labels.csv").mkdir()
    refused(one, r"labels\.csv is a folder, not a file")


def test_files_are_found_by_names_that_systems_spell_differently(tmp_path):
    put(tmp_path / "anna" / "Nu\u0308ll.EDF")
    put(tmp_path / "ben" / "b.edf")
    put(tmp_path / "ben" / "B.edf")
    label(
        tmp_path, "file,label\nanna\\Nüll.edf,rest\n./ben/b.edf,task\nben/B.edf,rest\n"
    )
    _, recordings = read_all(tmp_path)
    found = {name: spans(recording)[0][2] for name, recording in recordings.items()}
    assert found == {
        "anna/Nu\u0308ll.EDF": "rest",
        "ben/b.edf": "task",
        "ben/B.edf": "rest",
    }
    label(tmp_path, "file,label\nben/b.EDF,rest\n")
    refused(tmp_path, "names none of the recordings")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            "a.edf,p,,,rest\na.edf,p,,,task\n",
            r"'rest' as a whole \(line 2\) and 'task'",
        ),
        ("a.edf,p,1,2,rest\na.edf,p,1,2,task\n", r"'rest' from 1 s for 2 s \(line 2\)"),
        ("a.edf,p,1,1,task\na.edf,p,,,rest\n", r"'task' from 1 s .*'rest' as a whole"),
        (
            "a.edf,p,0,2,x\na.edf,p,0,5,x\na.edf,p,1,3,y\n",
            r"'x' from 0 s for 5 s \(line 3\) and 'y' from 1 s for 3 s \(line 4\)",
        ),
        ("a.edf,p,1,2,background\na.edf,p,1,2,seizure\n", r"'background' from 1 s"),
        ("a.edf,p,,,AF\na.edf,p,,,;\n", r"'AF' as a whole \(line 2\) and ';'"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(one, rows, words):
    label(one, HEAD + rows)
    refused(one, words)


def test_the_cures_of_a_contradiction_work(one):
    label(one, HEAD + "a.edf,p,,,rest;task\n")
    assert read_all(one)[0].classes == ("rest", "task")
    label(one, HEAD + "a.edf,p,0,3,rest\na.edf,p,3,3,task\n")
    assert read_all(one)[0].classes == ("rest", "task")


@pytest.mark.parametrize(
    "rows",
    [
        "a.edf,p,0,3,x\na.edf,p,2,3,y\n",
        "a.edf,p,,,x\na.edf,p,,,x\n",
        "a.edf,p,,,background\na.edf,p,1,2,seizure\n",
        "a.edf,p,,,rest\na.edf,p,1,2,unlabelled\n",
        "a.edf,p,,,AF;PVC\na.edf,p,1,2,AF\na.edf,p,1,2,PVC\n",
    ],
)
def test_rows_that_go_together_are_taken(one, rows):
    label(one, HEAD + rows)
    read_all(one)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("seizure", "Seizure"), "'Seizure', 'seizure' mean the same"),
        (("eyes open", "eyes_open"), "'eyes open', 'eyes_open'"),
        (("sz", "seizure", "rest"), "'seizure', 'sz'"),
        (("N2", "Sleep stage 2"), "'N2', 'Sleep stage 2'"),
        (("1", "1.0"), "'1', '1.0'"),
        (("x", "unlabeled"), "'unlabeled', 'unlabelled'"),
        (("Background", "background", "x"), "'Background', 'background'"),
    ],
)
def test_labels_that_are_one_are_refused_and_the_cure_works(tmp_path, labels, words):
    rows = ""
    for i, text in enumerate(labels):
        put(tmp_path / f"{i}.edf")
        rows += f"{i}.edf,{i},2,3,{text}\n"
    label(tmp_path, HEAD + rows)
    refused(tmp_path, words)
    label(tmp_path, HEAD + "0.edf,0,2,3,one\n1.edf,1,2,3,two\n")
    assert read_all(tmp_path)[0].classes == ("one", "two")


def test_annotations_that_are_one_label_give_way_to_a_table(tmp_path):
    put(tmp_path / "a.edf", annotations=[(1, 3, "Seizure")])
    put(tmp_path / "b.edf", annotations=[(1, 3, "seizures")])
    refused(tmp_path, r"'Seizure', 'seizures'.*labels\.csv")
    label(tmp_path, "file,onset,duration,label\na.edf,1,3,seizure\nb.edf,1,3,seizure\n")
    assert read_all(tmp_path)[0].classes == ("background", "seizure")


def test_labels_that_differ_stay_apart():
    apart = ("A", "a", "N1", "N2", "N3", "S4", "-1", "1", "10", "1.5", "15", "left")
    assert labels_alike(apart) == []
    assert labels_alike(("T0", "T1", "T2", "S  1", "S 10", "arm+", "arm-")) == []
    assert labels_alike(("がん", "かん")) == []


def test_names_of_persons_are_compared_by_their_spelling():
    same = (
        ("Anna", "ANNA", "anna "),
        ("P01", "p1", "P 1", "p_1", "p-001"),
        ("sub-03", "3", "03", "Subject 3"),
        ("Müller", "Mu\u0308ller", "MULLER"),
    )
    for names in same:
        assert len({person_key(name) for name in names}) == 1
    for names in (("p1", "p10"), ("1-10", "11-0"), ("anna1", "anna2"), ("100", "10")):
        assert len({person_key(name) for name in names}) == len(names)


def test_bad_stretches_are_no_class(one):
    text = (
        HEAD + "a.edf,p,0,6,rest\na.edf,p,1,1,BAD_muscle\na.edf,p,4,0.5,EDGE boundary\n"
    )
    label(one, text + "a.edf,p,5,1,bad\n")
    corpus, recordings = read_all(one)
    assert "rest" in corpus.classes
    assert not {"BAD_muscle", "EDGE boundary", "bad"} & set(corpus.classes)
    assert spans(recordings["a.edf"]) == [(0, 6, "rest")]
    marked = [(s.onset_s, s.duration_s) for s in recordings["a.edf"].bad_spans]
    assert marked == [(1, 1), (4, 0.5), (5, 1)]


def test_windows_that_a_bad_row_touches_are_unlabelled(one):
    label(one, HEAD + "a.edf,p,0,4,rest\na.edf,p,4,2,task\na.edf,p,2.5,1,BAD_muscle\n")
    config = DataConfig(
        **{"corpus": "folder", "root": str(one), "band": (0.5, 40.0), "workers": 1},
        window_s=2.0,
    )
    store = prepare(config, one.with_name(f"{one.name}-store"), progress=False)
    assert list(store.labels) == [0, -1, 1]
    assert store.manifest["recordings"]["a.edf"]["left_out"] == {"BAD_muscle": 1}


def test_annotations_that_are_bad_are_no_class(tmp_path):
    marks = [
        (0, 2, "rest"),
        (2, 1, "BAD_ACQ_SKIP"),
        (3, 3, "task"),
        (4, 1, "bad blink"),
    ]
    put(tmp_path / "a.edf", annotations=marks)
    corpus, recordings = read_all(tmp_path)
    assert corpus.classes == ("rest", "task")
    assert len(recordings["a.edf"].bad_spans) == 2


def test_large_tables_are_read_in_linear_time(tmp_path):
    files = [put(tmp_path / f"{i}.edf") for i in range(3)]

    def seconds(num, num_labels):
        rows = (
            f"{i % 3}.edf,p{i % 3},{i},1,label{i % num_labels}x\n" for i in range(num)
        )
        label(tmp_path, HEAD + "".join(rows))
        start = time.process_time()
        table = read_labels(tmp_path / "labels.csv", files)
        assert sum(map(len, table.values())) == num
        return time.process_time() - start

    small = seconds(3_000, 5)
    assert seconds(60_000, 5) < 20 * small * 5 + 1
    assert seconds(60_000, 20_000) < 20 * small * 5 + 1
