"""A folder of windows that were cut elsewhere."""

import json

import numpy as np
import pytest

from eegkd.data import DataConfig, get_corpus
from eegkd.data.windows.prepare import prepare
from eegkd.errors import InputError

ABOUT = {"channels": ["Fz", "T3", "ECG"], "rate": 50, "unit": "uV"}


def windows(num, seed=0, channels=3, samples=100):
    rng = np.random.default_rng(seed)
    return (20 * rng.normal(size=(num, channels, samples))).astype(np.float32)


def write_about(root, **changes):
    (root / "windows.json").write_text(json.dumps(ABOUT | changes))


@pytest.fixture
def folder(tmp_path):
    """A .npz and a .npy with its table: three persons, one in both."""
    root = tmp_path / "mine"
    (root / "more").mkdir(parents=True)
    write_about(root)
    np.savez(
        root / "a.npz",
        signal=windows(5),
        label=np.array(["go", "rest", "go", "", "rest"]),
        subject=np.array(["ann", "ann", "ben", "ben", "ben"]),
        split=np.array(["train", "train", "val", "val", "val"]),
    )
    np.save(root / "more" / "b.npy", windows(3, 1).astype(np.float64))
    text = (
        "label, subject, session, split\ngo,cyd,2,test\nrest,cyd,1,test\ngo,ann,2,train"
    )
    (root / "more" / "b.csv").write_text(text.replace(", ", ",") + "\n")
    return root


def store_of(root, out, **options):
    options = {"zscore": "none", "workers": 1} | options
    config = DataConfig(corpus="arrays", root=str(root), **options)
    return prepare(config, out, progress=False)


def test_windows_arrive_as_they_are(folder, tmp_path):
    store = store_of(folder, tmp_path / "store")
    assert store.classes == ("go", "rest")
    assert store.manifest["channels"] == ["Fz", "T7", "ECG"]
    assert store.manifest["units"] == ["uV", "uV", "mV"]
    assert (store.manifest["rate"], store.manifest["window_s"]) == (50, 2)
    assert store.index["subject"].tolist() == ["ann"] * 2 + ["ben"] * 3 + [
        *("cyd", "cyd", "ann")
    ]
    assert store.index["session"].tolist() == [""] * 5 + ["2", "1", "2"]
    assert store.labels.tolist() == [0, 1, 0, -1, 1, 0, 1, 0]
    assert store.index["on_grid"].all()
    want = np.concatenate([windows(5), windows(3, 1)])
    want[:, 2] /= 1000
    np.testing.assert_allclose(store.signal, want, rtol=1e-6)
    split = store.manifest["split"]
    assert split == {"train": ["ann"], "val": ["ben"], "test": ["cyd"]}
    events = store.manifest["recordings"]["more/b.npy:cyd:2"]["events"]
    assert [(e["onset_s"], e["duration_s"], e["label"]) for e in events] == [
        (0, 2, "go")
    ]


def test_numbers_name_classes_and_files_stand_for_persons(tmp_path):
    write_about(tmp_path, unit="zscore", classes=["rest", "task"])
    for seed, name in enumerate("ab"):
        path = tmp_path / f"{name}.npz"
        np.savez(path, signal=windows(3, seed), label=np.array([1, -1, 0]))
    out = tmp_path.with_name(tmp_path.name + "-store")
    store = store_of(tmp_path, out, channels=("T7",))
    assert store.classes == ("rest", "task")
    assert store.labels.tolist() == [1, -1, 0] * 2
    assert not store.manifest["has_subjects"]
    assert store.index["subject"].tolist() == ["a.npz"] * 3 + ["b.npz"] * 3
    np.testing.assert_array_equal(store.signal[:3, 0], windows(3)[:, 1])
    assert store.manifest["units"] == ["zscore"]
    assert "split" not in store.manifest
    write_about(tmp_path)
    assert get_corpus("arrays", tmp_path).classes == ("0", "1")


def test_volts_become_microvolts(tmp_path):
    write_about(tmp_path, unit="V", channels=["Fz", "Cz", "Pz"])
    signal = windows(2)
    np.savez(tmp_path / "a.npz", signal=signal * 1e-6, label=np.array([0, 1]))
    corpus = get_corpus("arrays", tmp_path)
    (source,) = corpus.list_sources(tmp_path)
    got = corpus.read(source)
    np.testing.assert_allclose(got.signal[:, :100], signal[0], rtol=1e-5)
    wrong = get_corpus("arrays", tmp_path, unit="uV")
    with pytest.raises(InputError, match=r"a\.npz: EEG channel Fz .*--data\.unit"):
        wrong.read(wrong.list_sources(tmp_path)[0])


def test_a_window_has_several_classes_as_columns_or_as_words(tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    write_about(root, classes=["AF", "RBBB", "PVC"])
    want = np.array([[1, 1, 0], [0, 0, 0], [0, -1, 1], [-1, -1, -1], [1, 0, 0]])
    np.savez(root / "a.npz", signal=windows(5), label=want.astype(float))
    np.save(root / "b.npy", windows(5, 1))
    words = ["AF;RBBB", ";", "unlabelled RBBB; 2", "", "0"]
    (root / "b.csv").write_text("label\n" + "".join(f'"{x}"\n' for x in words))
    store = store_of(root, tmp_path / "store")
    np.testing.assert_array_equal(store.labels, np.concatenate([want, want]))
    assert store.labels.dtype == np.float32
    assert store.manifest["multilabel"]
    counts = store.manifest["counts"]
    assert counts["classes"] == {"AF": 4, "RBBB": 2, "PVC": 2}
    assert counts["unlabelled"] == 2
    (root / "a.npz").unlink()
    write_about(root)
    (root / "b.csv").write_text("label\nPVC;AF\n;\nAF\nunlabelled\nRBBB\n")
    corpus = get_corpus("arrays", root)
    assert (corpus.classes, corpus.multilabel) == (("AF", "PVC", "RBBB"), True)
    (root / "b.csv").write_text("label\nPVC\nAF\nAF\nunlabelled\nRBBB\n")
    assert not get_corpus("arrays", root).multilabel
    assert "multilabel" not in store_of(root, tmp_path / "single").manifest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": 200.0}, r"--data\.rate 200\.0: .* cut already, and it is 50\.0"),
        ({"band": (0.5, 20.0)}, r"--data\.band \(0\.5, 20\.0\)"),
        ({"window_s": 1.0}, r"--data\.window_s 1\.0: .* it is 2\.0"),
        ({"overlap": 0.5}, r"--data\.overlap 0\.5"),
    ],
)
def test_nothing_filters_or_cuts_them_again(folder, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        store_of(folder, tmp_path / "store", **options)


def test_what_says_the_same_is_no_change(folder, tmp_path):
    same = {"rate": 50.0, "band": (0.0, 0.0), "window_s": 2.0, "overlap": 0.0}
    assert len(store_of(folder, tmp_path / "store", **same)) == 8


def put(**arrays):
    default = {"signal": windows(2), "label": np.array([0, 1])}
    return lambda root: np.savez(root / "a.npz", **(default | arrays))


def table(text):
    def write(root):
        np.save(root / "a.npy", windows(2))
        (root / "a.csv").write_text(text)

    return write


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda root: None, r"no \.npz or \.npy file"),
        (lambda root: np.savez(root / "a.npz", x=windows(2)), "no array `signal`"),
        (lambda root: np.savez(root / "a.npz", signal=windows(2)), "no labels"),
        (put(signal=windows(2)[0]), r"signal is float32\[3, 100\]"),
        (put(signal=windows(2).astype(str)), "signal is <U"),
        (put(signal=windows(2, channels=2)), r"2 channels, and .*json names 3"),
        (put(label=np.array([0, 1, 1])), r"label is of shape \[3\].* 2 windows"),
        (put(label=np.eye(2)), r"label is of shape \[2, 2\]"),
        (put(label=np.array([0, None])), "cannot be read without pickle"),
        (put(subject=np.array(["a", ""])), "window 1 has no subject"),
        (put(split=np.array(["train", "tset"]), subject=["a", "a"]), "'tset' of the s"),
        (put(split=np.array(["train", "val"]), subject=["a", "a"]), "before: train"),
        (lambda root: (root / "a.npz").write_bytes(b"PK torn"), r"a\.npz: cannot be"),
        (lambda root: np.save(root / "a.npy", windows(2)), r"a\.csv is missing"),
        (table("label\n0\n"), r"label is of shape \[1\].* 2 windows"),
        (table("lable\n0\n1\n"), r"a\.csv: unknown column 'lable'"),
        (table("label,subject\n0\n1\n"), r"a\.csv: cells and columns differ"),
        (table("subject\na\nb\n"), "no labels"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, write, words):
    write_about(tmp_path)
    write(tmp_path)
    with pytest.raises(InputError, match=words):
        get_corpus("arrays", tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unit": None}, r"unit is None.*--data\.unit"),
        ({"rate": "fast"}, "rate in Hz"),
        ({"rate": 0}, "no rate"),
        ({"channels": []}, "no channels"),
        ({"labels": ["a"]}, "unknown field labels"),
        ({"classes": ["rest"]}, r"window 1 has label '1', and the classes are rest"),
    ],
)
def test_what_is_said_of_them_is_checked(tmp_path, changes, words):
    put()(tmp_path)
    write_about(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        get_corpus("arrays", tmp_path)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.array(["rest;", "rest;stop"]), "window 1 has label 'stop'"),
        (np.array([[0, 1], [0, 2]]), r"1 \(yes\), 0 \(no\) or -1 \(not asked\)"),
        (np.array([[0.0, np.nan], [0, 1]]), "other values are in it"),
        (np.ones((2, 3)), r"label is of shape \[2, 3\], and .*json lists 2 classes"),
    ],
)
def test_labels_of_several_classes_are_checked(tmp_path, label, words):
    write_about(tmp_path, classes=["rest", "go"])
    put(label=label)(tmp_path)
    with pytest.raises(InputError, match=words):
        get_corpus("arrays", tmp_path)


def test_it_has_to_be_said_what_they_are(tmp_path):
    put()(tmp_path)
    with pytest.raises(InputError, match=r"windows\.json is missing"):
        get_corpus("arrays", tmp_path)
    (tmp_path / "windows.json").write_text("{channels")
    with pytest.raises(InputError, match=r"windows\.json: it is not JSON"):
        get_corpus("arrays", tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        get_corpus("arrays")


def test_lengths_have_to_agree_and_numbers_to_be_numbers(tmp_path):
    write_about(tmp_path)
    signal = windows(2)
    signal[1, 1, 7] = np.nan
    put(signal=signal)(tmp_path)
    corpus = get_corpus("arrays", tmp_path)
    with pytest.raises(InputError, match=r"a\.npz: channel T7 holds NaN"):
        corpus.read(corpus.list_sources(tmp_path)[0])
    path = tmp_path / "b.npz"
    np.savez(path, signal=windows(1, samples=80), label=np.array([0]))
    with pytest.raises(InputError, match="80 samples, and .* has 100"):
        get_corpus("arrays", tmp_path)


def test_a_published_split_has_to_be_whole(folder):
    corpus = get_corpus("arrays", folder)
    with pytest.raises(InputError, match="dan is in no part"):
        corpus.fixed_split(("ann", "ben", "cyd", "dan"))
    with pytest.raises(InputError, match="a part is empty"):
        corpus.fixed_split(("ann", "ben"))


@pytest.mark.parametrize("value", [np.inf, 1e300, -np.inf])
def test_numbers_beyond_float32_are_refused(tmp_path, value):
    write_about(tmp_path, unit="V")
    signal = windows(2).astype(np.float64) * 1e-6
    signal[0, 0, 3] = value
    put(signal=signal)(tmp_path)
    corpus = get_corpus("arrays", tmp_path)
    with pytest.raises(InputError, match=r"a\.npz: channel Fz holds"):
        corpus.read(corpus.list_sources(tmp_path)[0])
