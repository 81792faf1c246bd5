import json
import pickle
import resource

import numpy as np
import pytest

from eegkd.data.windows.store import WindowStore, check_trainable
from eegkd.errors import InputError
from eegkd.host import sealed

MANIFEST = {
    "corpus": "toy",
    "classes": ["rest", "seizure"],
    "channels": ["C3", "C4"],
    "rate": 100.0,
    "window_s": 0.08,
}


def toy_arrays(num=12):
    rng = np.random.default_rng(0)
    index = {
        "recording_id": np.repeat(["b_1", "a_1", "a_2"], num // 3),
        "subject": np.repeat(["b", "a", "a"], num // 3),
        "start_s": np.tile(np.arange(num // 3) * 0.04, 3),
        "label": np.tile([0, 1, -1, 0], 3)[:num],
        "on_grid": np.tile([True, False], num // 2),
    }
    return rng.normal(size=(num, 2, 8)).astype(np.float32), index


@pytest.fixture
def folder(tmp_path):
    WindowStore.from_arrays(tmp_path / "store", *toy_arrays(), MANIFEST)
    return tmp_path / "store"


def test_a_store_on_disk_equals_the_one_in_memory(folder):
    signal, index = toy_arrays()
    memory = WindowStore.from_arrays(None, signal, index, MANIFEST)
    disk = WindowStore.open(folder)
    assert isinstance(disk.signal, np.memmap)
    assert isinstance(memory.path, type(None))
    np.testing.assert_array_equal(disk.signal, signal)
    for name, column in memory.index.items():
        np.testing.assert_array_equal(disk.index[name], column)
        assert disk.index[name].dtype == column.dtype
    assert disk.index["label"].dtype == np.int32
    assert {k: v for k, v in disk.manifest.items() if k not in ("files", "sha256")} == {
        k: v for k, v in memory.manifest.items() if k not in ("files", "sha256")
    }
    assert not list(folder.parent.glob("*.writing"))


def test_a_store_in_memory_is_told_from_one_of_other_windows():
    signal, index = toy_arrays()
    first, again = (
        WindowStore.from_arrays(None, signal, index, MANIFEST) for _ in range(2)
    )
    assert first.fingerprint == again.fingerprint
    other = WindowStore.from_arrays(None, 2 * signal, index, MANIFEST)
    assert first.fingerprint != other.fingerprint


def test_counts_rows_and_subjects(folder):
    store = WindowStore.open(folder)
    assert store.manifest["counts"] == {
        "classes": {"rest": 6, "seizure": 3},
        "unlabelled": 3,
        "on_grid": 6,
        "subjects": {
            "a": {"rest": 4, "seizure": 2},
            "b": {"rest": 2, "seizure": 1},
        },
    }
    assert store.subjects.names == ("a", "b")
    np.testing.assert_array_equal(store.subjects.codes, [1] * 4 + [0] * 8)
    np.testing.assert_array_equal(store.rows(["b"], on_grid=True), [0, 2])
    np.testing.assert_array_equal(store.rows(["a"]), np.arange(4, 12))
    np.testing.assert_array_equal(store.recording_rows("a_1"), [4, 5, 6, 7])
    with pytest.raises(InputError, match="No subject 'z'"):
        store.rows(["z"])


def test_rows_come_in_time_order_however_they_were_stored():
    signal, index = toy_arrays()
    order = np.random.default_rng(1).permutation(len(signal))
    shuffled = {name: np.asarray(column)[order] for name, column in index.items()}
    store = WindowStore.from_arrays(None, signal[order], shuffled, MANIFEST)
    rows = store.rows(["a"])
    names, starts = store.index["recording_id"][rows], store.index["start_s"][rows]
    for name in ("a_1", "a_2"):
        assert np.all(np.diff(starts[names == name]) > 0)
    assert np.sum(names[1:] != names[:-1]) == 1
    assert np.all(np.diff(store.index["start_s"][store.recording_rows("b_1")]) > 0)


def test_student_labels_hide_other_subjects():
    signal, index = toy_arrays()
    manifest = MANIFEST | {"student_subjects": ["b"]}
    store = WindowStore.from_arrays(None, signal, index, manifest)
    np.testing.assert_array_equal(store.student_labels[:4], [0, 1, -1, 0])
    assert np.all(store.student_labels[4:] == -1)
    plain = WindowStore.from_arrays(None, signal, index, MANIFEST)
    np.testing.assert_array_equal(plain.student_labels, plain.labels)


def test_several_labels_a_window():
    signal, index = toy_arrays()
    label = np.tile([[0, 1], [1, 1], [0, 0]], (4, 1))
    store = WindowStore.from_arrays(None, signal, index | {"label": label}, MANIFEST)
    assert store.labels.dtype == np.float32
    assert store.manifest["counts"]["classes"] == {"rest": 4, "seizure": 8}


def test_pickling_sends_the_path_not_the_signal(folder):
    store = WindowStore.open(folder)
    data = pickle.dumps(store)
    assert len(data) < 500
    np.testing.assert_array_equal(pickle.loads(data).signal, store.signal)
    memory = WindowStore.from_arrays(None, *toy_arrays(), MANIFEST)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(memory)).signal, memory.signal
    )


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        WindowStore.from_arrays(tmp_path / name, *toy_arrays(), MANIFEST)
    for name in ("signal.npy", "index.npz", "manifest.json"):
        one, two = ((tmp_path / which / name).read_bytes() for which in ("one", "two"))
        assert one == two


@pytest.mark.parametrize("name", ["signal.npy", "index.npz", "manifest.json"])
def test_a_store_cut_short_is_refused(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(InputError, match=name):
        WindowStore.open(folder)


def _edit(folder, change):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("rate", lambda m: m.pop("rate")),
        ("version", lambda m: m.update(version=99)),
        ("preprocessing", lambda m: m.update(preprocessing={"rate": 1})),
        ("signal.npy", lambda m: m["files"].pop("signal.npy")),
        ("manifest.json was altered", lambda m: m.update(window_s=9.0)),
        ("manifest.json was altered", lambda m: m["shape"].__setitem__(0, 3)),
    ],
)
def test_an_altered_manifest_is_refused_by_field(folder, field, change):
    _edit(folder, change)
    with pytest.raises(InputError, match=field):
        WindowStore.open(folder)


@pytest.mark.parametrize("name", ["signal.npy", "index.npz"])
def test_an_altered_file_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=rf"{name} was altered"):
        WindowStore.open(folder)


def test_windows_are_hashed_once_per_process_and_again_where_they_changed(
    folder, monkeypatch
):
    hashed = []

    def hash_file(path):
        hashed.append(path.name)
        return whole(path)

    whole = sealed.hash_file
    monkeypatch.setattr(sealed, "hash_file", hash_file)
    # Written by this process, which hashed them on their way.
    store = WindowStore.open(folder)
    assert "signal.npy" not in hashed
    monkeypatch.setattr(sealed, "_found_whole", set())
    for _ in range(2):
        WindowStore.open(folder)
    assert hashed.count("signal.npy") == 1
    # A worker, and who reads no window, compare sizes alone.
    monkeypatch.setattr(sealed, "_found_whole", set())
    pickle.loads(pickle.dumps(store))
    WindowStore.open(folder, "size")
    assert hashed.count("signal.npy") == 1
    (folder / "signal.npy").touch()
    WindowStore.open(folder)
    assert hashed.count("signal.npy") == 2


def test_what_is_no_store_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="eegkd prepare"):
        WindowStore.open(tmp_path / "nothing")
    (tmp_path / "begun.partial").mkdir()
    with pytest.raises(InputError, match="again to resume"):
        WindowStore.open(tmp_path / "begun")


def test_an_existing_folder_is_never_overwritten(folder):
    with pytest.raises(InputError, match="is there already"):
        WindowStore.from_arrays(folder, *toy_arrays(), MANIFEST)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    signal = np.zeros((12, 2, 5000), np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError, match=r"Cannot write to .*store"):
            WindowStore.from_arrays(
                tmp_path / "store", signal, toy_arrays()[1], MANIFEST
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        WindowStore.from_arrays(tmp_path / "file" / "store", *toy_arrays(), MANIFEST)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [None, "store"])
def test_nan_is_refused_by_recording_and_time(tmp_path, bad, where):
    signal, index = toy_arrays()
    signal[5, 1, 3] = bad
    with pytest.raises(InputError, match=r"a_1: NaN .* 0\.04 s"):
        WindowStore.from_arrays(where and tmp_path / where, signal, index, MANIFEST)
    assert list(tmp_path.iterdir()) == []


def test_arrays_that_contradict_each_other_are_refused():
    signal, index = toy_arrays()
    with pytest.raises(ValueError, match="'start_s' has 3 rows"):
        WindowStore.from_arrays(
            None, signal, index | {"start_s": np.zeros(3)}, MANIFEST
        )
    with pytest.raises(ValueError, match="3 channel names"):
        WindowStore.from_arrays(
            None, signal, index, MANIFEST | {"channels": ["a", "b", "c"]}
        )
    with pytest.raises(ValueError, match="Label 1 but"):
        WindowStore.from_arrays(None, signal, index, MANIFEST | {"classes": ["rest"]})
    with pytest.raises(ValueError, match="lacks window_s"):
        WindowStore.from_arrays(
            None, signal, index, {k: v for k, v in MANIFEST.items() if k != "window_s"}
        )
    empty = {name: column[:0] for name, column in index.items()}
    with pytest.raises(InputError, match="no windows"):
        WindowStore.from_arrays(None, signal[:0], empty, MANIFEST)


def test_one_class_cannot_be_trained_on():
    signal, index = toy_arrays()
    check_trainable(WindowStore.from_arrays(None, signal, index, MANIFEST))
    for label, words in ((np.zeros(12), "only class 'rest'"), (-np.ones(12), "no lab")):
        store = WindowStore.from_arrays(
            None, signal, index | {"label": label}, MANIFEST
        )
        with pytest.raises(InputError, match=words):
            check_trainable(store)
