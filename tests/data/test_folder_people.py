import shutil

import numpy as np
import pytest

from eegkd.data import DataConfig
from eegkd.data.windows.folds import leaks_subjects, make_folds
from eegkd.data.windows.prepare import make_plan, prepare
from eegkd.errors import InputError
from tests.support.folders import label, put, read_all

HEAD = "file,subject,label\n"


def people(root, **options):
    return {name: r.subject for name, r in read_all(root, **options)[1].items()}


def refused(root, words, **options):
    with pytest.raises(InputError, match=words):
        read_all(root, **options)


def fill(root, *names):
    for name in names:
        put(root / name)
    return root


def test_a_file_of_nobody_is_a_group_of_its_own(tmp_path):
    rows = "file,onset,duration,label\n"
    for person in ("anna", "ben", "cleo", "dora", "emil", "fay"):
        for night in (1, 2):
            put(tmp_path / person / f"n{night}.edf")
            rows += f"{person}/n{night}.edf,1,3,seizure\n"
    put(tmp_path / "new.edf")
    label(tmp_path, rows)
    config = DataConfig(
        **{"corpus": "folder", "root": str(tmp_path), "band": (0.5, 40.0)},
        **{"window_s": 2.0, "workers": 1},
    )
    store = prepare(
        config, tmp_path.with_name(f"{tmp_path.name}-store"), progress=False
    )
    assert store.manifest["has_subjects"]
    assert "1 of 13 recordings are of nobody named" in store.manifest["notes"][0]
    for fold in make_folds(store):
        sides = [set(store.index["subject"][rows]) for rows in fold[1:]]
        assert not sides[0] & sides[2]
        assert not sides[0] & sides[1]
        assert not leaks_subjects(store, fold)
    tested = [np.unique(store.index["subject"][f.test]) for f in make_folds(store)]
    assert sorted(np.concatenate(tested)) == sorted(
        ["anna", "ben", "cleo", "dora", "emil", "fay", "new.edf"]
    )


def test_one_sub_folder_that_holds_everything_names_nobody(tmp_path):
    fill(tmp_path, "edf/p0.edf", "edf/p1.edf", "edf/p2.edf")
    corpus, recordings = read_all(tmp_path)
    assert not corpus.has_subjects
    assert {r.subject for r in recordings.values()} == set(recordings)
    assert "one sub-folder edf, which tells nobody apart" in corpus.notes[0]
    assert people(tmp_path, subject_from="file")["edf/p1.edf"] == "p1"
    assert set(people(tmp_path, subject_from="folder").values()) == {"edf"}


@pytest.mark.parametrize(
    ("folders", "what"),
    [
        (("healthy", "ill"), "'healthy' reads as a class"),
        (("Patients", "Controls"), "'Controls' reads as a class"),
        (("day1", "day2"), "'day1' reads as a time"),
        (("2024-01-31", "2024-02-01"), "'2024-01-31' reads as a time"),
        (("20240131", "20240201"), "'20240131' reads as a time"),
        (("session_1", "session_2"), "'session_1' reads as a time"),
        (("siteA", "siteB"), "'siteA' reads as a place"),
        (("edf", "bdf"), "'bdf' reads as a kind of file"),
        (("train", "test"), "'test' reads as a part of a split"),
        (("anna", "ben", "raw"), "'raw' reads as a kind of file"),
    ],
)
def test_folders_that_read_as_something_else_are_asked_for(tmp_path, folders, what):
    for i, folder in enumerate(folders):
        fill(tmp_path, f"{folder}/x{i}_rest.edf", f"{folder}/y{i}_rest.edf")
    refused(tmp_path, rf"{what}.*--data\.subject_from folder .* file .* prefix .* none")
    first = folders[0]
    chosen = {
        how: people(tmp_path, subject_from=how)[f"{first}/x0_rest.edf"]
        for how in ("folder", "file", "prefix", "none")
    }
    assert chosen == {
        **{"folder": first, "file": "x0_rest", "prefix": "x0"},
        "none": f"{first}/x0_rest.edf",
    }
    rows = (f"{x}/{y}{i}_rest.edf" for i, x in enumerate(folders) for y in "xy")
    label(tmp_path, HEAD + "".join(f"{x},of {i},a\n" for i, x in enumerate(rows)))
    assert len(set(people(tmp_path).values())) == 2 * len(folders)


def test_folders_that_are_called_like_labels_are_asked_for(tmp_path):
    fill(tmp_path, "Lyrica/a.edf", "placebo/b.edf")
    people(tmp_path)
    label(tmp_path, "file,label\nLyrica/a.edf,lyrica\nplacebo/b.edf,placebo\n")
    refused(tmp_path, "'Lyrica' reads as a class")


@pytest.mark.parametrize(
    "names",
    [
        ("berlin/p1.edf", "berlin/p2.edf", "paris/p3.edf", "paris/p4.edf"),
        ("x/sub1_a.edf", "x/sub2_a.edf", "y/sub1_b.edf", "y/sub2_b.edf"),
    ],
)
def test_folders_whose_files_are_named_after_persons_are_asked_for(tmp_path, names):
    fill(tmp_path, *names)
    refused(tmp_path, "are named after several")


@pytest.mark.parametrize(
    "names",
    [
        ("anna/s1.edf", "anna/s2.edf", "ben/s1.edf", "ben/s2.edf"),
        ("anna/night1.edf", "anna/night2.edf", "ben/day2.edf"),
        ("chb01/chb01_03.edf", "chb01/chb01_04.edf", "chb02/chb02_01.edf"),
        ("S001/S001R01.edf", "S001/S001R02.edf", "S002/S002R01.edf"),
        ("1/a.edf", "2/a.edf", "10/a.edf"),
        ("patient01/a.edf", "control01/a.edf"),
    ],
)
def test_folders_of_persons_are_taken_for_them(tmp_path, names):
    fill(tmp_path, *names)
    corpus, recordings = read_all(tmp_path)
    found = {name: r.subject for name, r in recordings.items()}
    assert found == {name: name.split("/")[0] for name in names}
    assert (corpus.has_subjects, corpus.notes) == (True, ())


@pytest.mark.parametrize(
    "names",
    [("Anna", "anna", "ANNA"), ("P01", "p1", "x"), ("Müller", "Mu\u0308ller", "x")],
)
def test_persons_that_differ_by_spelling_are_refused(tmp_path, names):
    fill(tmp_path, "0.edf", "1.edf", "2.edf")
    label(tmp_path, HEAD + "".join(f"{i}.edf,{x},a\n" for i, x in enumerate(names)))
    refused(tmp_path, "differ by their spelling alone")
    label(tmp_path, HEAD + f"0.edf,{names[0]},a\n1.edf,{names[0]},a\n2.edf,other,a\n")
    assert sorted(people(tmp_path).values()) == sorted([names[0], names[0], "other"])


def test_folders_that_differ_by_spelling_are_refused(tmp_path):
    fill(tmp_path, "Anna/a.edf", "anna/b.edf")
    refused(tmp_path, "'Anna', 'anna' differ by their spelling alone")
    shutil.move(tmp_path / "anna" / "b.edf", tmp_path / "Anna" / "b.edf")
    fill(tmp_path, "sub-03/c.edf")
    label(tmp_path, HEAD + "Anna/a.edf,3,x\nAnna/b.edf,3,x\n")
    refused(tmp_path, "'3', '03' differ")


def test_a_person_named_for_some_recordings_alone_is_refused(tmp_path):
    fill(tmp_path, "anna/a.edf", "anna/b.edf", "ben/c.edf")
    label(tmp_path, HEAD + "anna/a.edf,P7,x\nben/c.edf,P8,y\n")
    refused(tmp_path, r"'P7' as the subject of recordings of 'anna'.*anna/b\.edf")
    label(tmp_path, HEAD + "anna/a.edf,P7,x\nben/c.edf,P8,y\nanna/b.edf,P7,x\n")
    assert people(tmp_path)["anna/b.edf"] == "P7"


def test_equal_recordings_of_two_persons_are_refused(tmp_path):
    put(tmp_path / "anna" / "a.edf", seed=1)
    put(tmp_path / "ben" / "b.edf", seed=2)
    copy = shutil.copy(tmp_path / "anna" / "a.edf", tmp_path / "ben" / "c.edf")
    refused(tmp_path, r"'anna/a\.edf', 'ben/c\.edf' hold the same samples")
    # A header that names another person makes no other recording.
    data = bytearray(copy.read_bytes())
    data[8:20] = b"X M 1990 Ben"
    copy.write_bytes(data)
    refused(tmp_path, "hold the same samples")
    data[-1] ^= 1
    copy.write_bytes(data)
    assert people(tmp_path)["ben/c.edf"] == "ben"


def test_equal_recordings_of_one_person_are_told_of(tmp_path):
    put(tmp_path / "anna" / "a.edf", seed=1)
    put(tmp_path / "anna" / "a copy.edf", seed=1)
    put(tmp_path / "ben" / "b.edf", seed=2)
    corpus, _ = read_all(tmp_path)
    assert "hold the same samples: they count 2 times" in corpus.notes[0]
    refused(tmp_path, "or of nobody", subject_from="none")
    (tmp_path / "anna" / "a copy.edf").unlink()
    assert read_all(tmp_path)[0].notes == ()


def test_equal_samples_beside_their_headers_are_found(tmp_path):
    from eegkd.data.folders.copies import equal_recordings

    files, data = [], []
    for name in ("a", "b", "c"):
        files.append(tmp_path / f"{name}.vhdr")
        files[-1].write_text(f"DataFile={name}.eeg\n" * 3)
        data.append(tmp_path / f"{name}.eeg")
        data[-1].write_bytes(b"\1\2" * 9000 if name != "c" else b"\1\3" * 9000)
    assert equal_recordings(files, data) == [tuple(files[:2])]


def test_the_choice_is_kept_in_the_store_and_its_absence_is_not(tmp_path):
    fill(tmp_path, "anna/a.edf", "ben/b.edf", "cleo/c.edf")
    plain = make_plan(DataConfig(corpus="folder", root=str(tmp_path)))
    assert "subject_from" not in plain.settings
    chosen = make_plan(
        DataConfig(corpus="folder", root=str(tmp_path), subject_from="file")
    )
    assert chosen.settings["subject_from"] == "file"
    assert chosen.hash != plain.hash
