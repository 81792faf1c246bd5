"""A store whose files were altered by who also made their hashes fit."""

import json

import numpy as np
import pytest

from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.host.sealed import hash_file, seal

NUM = 6


@pytest.fixture
def folder(tmp_path):
    index = {
        "recording_id": np.repeat(["a", "b"], 3),
        "subject": np.repeat(["p", "q"], 3),
        "start_s": np.tile(np.arange(3.0), 2),
        "label": np.arange(NUM) % 2,
    }
    about = {"corpus": "x", "classes": ["no", "yes"], "channels": ["C3"], "rate": 10}
    signal = np.random.default_rng(0).normal(size=(NUM, 1, 10))
    WindowStore.from_arrays(
        tmp_path / "store", signal, index, about | {"window_s": 1.0}
    )
    return tmp_path / "store"


def reseal(folder, **changes):
    file = folder / "manifest.json"
    record = json.loads(file.read_text()) | changes
    for name in record["files"] if isinstance(record["files"], dict) else ():
        if (folder / name).is_file() and isinstance(record["files"][name], dict):
            size, sha256 = (folder / name).stat().st_size, hash_file(folder / name)
            record["files"][name] = {"bytes": size, "sha256": sha256}
    file.write_text(seal(record))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": "ny"}, "classes is 'ny', not a list of texts"),
        ({"classes": ["no", 3]}, r"classes\[1\] is 3, not a text"),
        ({"channels": {"C3": 1}}, "channels is an object, not a list of texts"),
        ({"rate": "10"}, "rate is '10', not a number"),
        ({"window_s": None}, "window_s is null, not a number"),
        ({"rate": float("nan")}, "rate is nan, not a number"),
        ({"shape": [NUM, 1, "10"]}, r"shape\[2\] is '10', not a whole number"),
        ({"recordings": []}, "recordings is a list of 0, not an object"),
        ({"recordings": {"a": 3}}, "recordings.a is 3, not an object"),
        ({"has_subjects": "no"}, "has_subjects is 'no', not true or false"),
        ({"files": {"signal.npy": 3, "index.npz": 4}}, "files.index.npz is 4, not an"),
        ({"counts": {}}, "counts does not match index.npz"),
    ],
)
def test_a_manifest_of_other_types_is_refused_by_field(folder, changes, said):
    reseal(folder, **changes)
    with pytest.raises(InputError, match=f"{said}.*prepare again"):
        WindowStore.open(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": None}, "has no column label"),
        ({"label": np.zeros(NUM - 1, np.int32)}, r"label is int32\[5\], of 6 windows"),
        (
            {"label": np.full(NUM, 7, np.int32)},
            "holds a label that is not between -1 a",
        ),
        ({"label": np.zeros((NUM, 3), np.float32)}, r"shape \[6, 3\], of 2 classes"),
        ({"label": np.full((NUM, 2), np.nan, "f4")}, "not between -1 and 1"),
        ({"start_s": np.full(NUM, np.nan)}, "a start that is no finite number"),
        ({"start_s": np.array(["x"] * NUM)}, "start_s is <U1"),
        ({"subject": np.arange(NUM)}, "subject is int64"),
        ({"on_grid": np.array(True)}, r"on_grid is bool\[\]"),
    ],
)
def test_an_index_of_other_columns_is_refused_by_column(folder, changes, said):
    with np.load(folder / "index.npz") as file:
        index = {name: file[name] for name in file.files} | changes
    kept = {name: column for name, column in index.items() if column is not None}
    np.savez(folder / "index.npz", **kept)
    reseal(folder)
    with pytest.raises(InputError, match=f"index.npz.* {said}|index.npz {said}"):
        WindowStore.open(folder)


@pytest.mark.parametrize("shape", ["(6, 1, 1000000000000)", "(6, 1, 11)", "(6, -1)"])
def test_a_signal_of_another_header_is_refused(folder, shape):
    file = folder / "signal.npy"
    content = file.read_bytes()
    old = b"(6, 1, 10), }"
    assert old in content
    new = f"{shape}, }}".encode()
    padded = content.replace(old + b" " * (len(new) - len(old)), new, 1)
    padded = (
        padded if len(new) > len(old) else content.replace(old, new.ljust(len(old)), 1)
    )
    file.write_bytes(padded)
    reseal(folder)
    with pytest.raises(InputError, match=r"signal\.npy|shape"):
        WindowStore.open(folder)


def test_a_store_that_is_whole_opens(folder):
    before = WindowStore.open(folder)
    reseal(folder)
    assert WindowStore.open(folder).fingerprint == before.fingerprint
