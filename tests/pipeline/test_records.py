"""Records of a run folder: their types, the files they name, and what is not ours."""

import numpy as np
import pytest

from eegkd.data.windows.store import WindowStore
from eegkd.errors import InputError
from eegkd.evaluate.predictions import make_predictions, save_predictions
from eegkd.pipeline import finished
from eegkd.pipeline.folder import open_run, read_json, read_record, write_json
from tests.support import tiny_run


def record(path):
    return {
        "system": "distilclip_eeg",
        "run": tiny_run.tiny_config(path),
        "store": {"path": "", "fingerprint": "abc"},
        "num_folds": 2,
        "variants": [],
    }


@pytest.mark.parametrize("name", ["report.html", "results.json", "fold0"])
def test_files_of_others_are_not_overwritten(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"holds {name} and no config.json .* another"):
        open_run(tmp_path, record(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).rename(tmp_path / "notes.txt")  # What no run writes.
    open_run(tmp_path, record(tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("variants", ["a", 3], r"variants\[1\] is 3, not a text"),
        ("variants", "gru", "variants is 'gru', not a list of texts"),
        ("num_folds", "5", "num_folds is '5', not a whole number"),
        ("store", {"path": 3}, "store.path is 3, not a text"),
        ("run", [], "run is a list of 0, not an object"),
        (
            "weights",
            {"system": {"t": {"model": "m"}}},
            "weights.system.t.files is",
        ),
    ],
)
def test_a_record_of_other_types_is_named_with_its_field(tmp_path, field, value, said):
    open_run(tmp_path, record(tmp_path))
    path = tmp_path / "config.json"
    write_json(path, read_json(path) | {field: value})
    with pytest.raises(InputError, match=rf"config\.json: damaged JSON \({said}"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("group", "change", "said"),
    [
        ("train", {"epochs": "10"}, "train.epochs is '10', not a whole number"),
        ("train", {"sweep": "all"}, "train.sweep is 'all', not 'auto' or"),
        ("train", {"held_out": 2.0}, r"train.held_out is in \[0, 1\); got 2.0"),
        ("data", {"channels": "C3"}, "data.channels is 'C3', not a list of texts"),
        ("data", {"band": [1]}, "data.band is a list of 1, not a list of 2 numbers or"),
        ("data", {"bnad": None}, "data has an unknown field bnad"),
    ],
)
def test_options_of_other_types_are_named(tmp_path, group, change, said):
    open_run(tmp_path, record(tmp_path))
    path = tmp_path / "config.json"
    old = read_json(path)
    run = old["run"] | {group: old["run"][group] | change}
    write_json(path, old | {"run": run})
    with pytest.raises(InputError, match=rf"config\.json: the options .*{said}"):
        open_run(tmp_path, record(tmp_path))


def test_done_json_names_files_of_a_training_alone(tmp_path):
    for files, said in (
        ({"../evil": "0"}, r"names \.\./evil"),
        ({"val.npz": 3}, r"files.val.npz is 3, not a text"),
        (["val.npz"], "files is a list of 1, not an object"),
    ):
        write_json(tmp_path / "done.json", {"seconds": 1.0, "files": files})
        with pytest.raises(InputError, match=f"done.json.*{said}"):
            finished.check_results(tmp_path)


def test_predictions_are_those_of_the_store(tmp_path):
    n = 6
    index = {
        "recording_id": np.repeat(["a", "b"], 3),
        "subject": np.repeat(["a", "b"], 3),
        "start_s": np.arange(n),
        "label": np.arange(n) % 2,
        "window_id": np.arange(n) + 10,
    }
    about = {"corpus": "x", "classes": ["p", "q"], "channels": ["C3"], "rate": 10}
    store = WindowStore.from_arrays(
        None, np.zeros((n, 1, 10)), index, about | {"window_s": 1.0}
    )
    rows = np.array([1, 3, 5])
    whole = make_predictions(
        np.full((3, 2), 0.5),
        index["label"][rows],
        index["subject"][rows],
        index["recording_id"][rows],
        index["start_s"][rows],
        index["window_id"][rows],
    )
    file = tmp_path / "val.npz"
    save_predictions(file, whole)
    again = finished.read_predictions(file, store)
    np.testing.assert_array_equal(again.window_id, [11, 13, 15])
    for changes in (
        {"window_id": np.array([11, 13, 16])},
        {"window_id": np.array([11, 13, 9])},
        {"window_id": np.array([11, 12, 15])},
        {"window_id": np.array([11, 13, 13])},
        {"recording": np.array(["a", "b", "c"])},
    ):
        save_predictions(file, whole._replace(**changes))
        with pytest.raises(InputError, match="is no window of the run's store"):
            finished.read_predictions(file, store)
    for bad in (np.nan, -2.0, 3.0):
        save_predictions(file, whole._replace(prob=np.full((3, 2), bad, np.float32)))
        with pytest.raises(InputError, match=r"val\.npz is damaged: Probabilities"):
            finished.read_predictions(file, store)
