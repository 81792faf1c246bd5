"""Windows and weights that a foundation model cannot take: an error with its cure."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from eegkd.cli import main
from eegkd.data.windows.store import WindowStore
from eegkd.models import TEN_TWENTY
from tests.support.foundation_files import cbramod_tensors


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch):
    monkeypatch.delenv("EEGKD_REAL_DATA", raising=False)


def write_store(path, *, channels=("C3", "Cz"), rate=200.0, seconds=2, unit="uV"):
    """Four persons with eight windows each, of two classes."""
    num, samples = 32, round(seconds * rate)
    rng = np.random.default_rng(0)
    person = np.repeat([f"{i:02d}" for i in range(4)], 8)
    index = {
        "recording_id": person,
        "subject": person,
        "start_s": np.tile(np.arange(8.0) * seconds, 4),
        "label": np.arange(num) % 2,
    }
    about = {
        "corpus": "toy",
        "classes": ["rest", "task"],
        "channels": list(channels),
        "units": [unit] * len(channels),
        "rate": rate,
        "window_s": samples / rate,
    }
    signal = 20 * rng.normal(size=(num, len(channels), samples))
    WindowStore.from_arrays(path, signal, index, about)
    return path


@pytest.fixture
def refused(tmp_path, capsys):
    """Distils from a store in vain; returns the one message. Nothing is written."""

    def check(store, *args):
        out = tmp_path / "run"
        options = ("--num_folds", 2, "--train.batch_size", 8, "--out", out, *args)
        given = ("distill", "dlink", "--preset", "small", "--store", store, *options)
        assert main([str(arg) for arg in given]) == 2
        lines = [x for x in capsys.readouterr().err.splitlines() if x.strip()]
        assert len(lines) == 1, lines
        assert lines[0].startswith("eegkd: ")
        assert not out.exists()
        return lines[0]

    return check


def test_another_rate(refused, tmp_path):
    message = refused(write_store(tmp_path / "store", rate=250.0))
    assert "rate is 250 Hz, and the model was trained at 200 Hz" in message
    assert "--data.rate 200" in message


def test_windows_that_are_no_whole_seconds(refused, tmp_path):
    message = refused(write_store(tmp_path / "store", seconds=2.5))
    assert "windows have 500 samples, and the model takes 2 patches of 200" in message
    assert "--data.window_s 2" in message


def test_more_patches_than_labram_has_places_for(refused, tmp_path):
    store = write_store(tmp_path / "store", seconds=20)
    message = refused(store, "--teacher.name", "labram")
    assert "16 patches" in message
    assert "--data.window_s 16" in message


def test_a_channel_that_labram_has_no_name_for(refused, tmp_path):
    store = write_store(tmp_path / "store", channels=("C3", "Left ear"))
    message = refused(store, "--teacher.name", "labram")
    assert "no embedding for LEFT EAR" in message.replace("Left ear", "LEFT EAR")
    assert "--data.channels" in message


def test_units_that_no_scale_fits(refused, tmp_path):
    message = refused(write_store(tmp_path / "store", unit="n/a"))
    assert "units are n/a" in message


def test_weights_with_a_key_too_few_and_one_too_many(refused, tmp_path):
    store, file = write_store(tmp_path / "store"), tmp_path / "weights.safetensors"
    tensors = cbramod_tensors()
    del tensors["encoder.layers.1.norm2.bias"]
    save_file(tensors | {"extra.weight": np.zeros(3, np.float32)}, file)
    message = refused(store, "--teacher.weights", file)
    assert str(file) in message
    assert "missing encoder.layers.1.norm2.bias" in message
    assert "unexpected extra.weight" in message


def test_weights_that_are_none(refused, tmp_path):
    store = write_store(tmp_path / "store")
    message = refused(store, "--teacher.weights", tmp_path / "none.pth")
    assert f"{tmp_path / 'none.pth'}" in message
    file = tmp_path / "torn.safetensors"
    file.write_bytes(b"torn")
    assert str(file) in refused(store, "--teacher.weights", file)


def test_channels_in_another_order_than_the_weights_know(refused, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(cbramod_tensors(), file)
    store = write_store(tmp_path / "store", channels=TEN_TWENTY[::-1])
    message = refused(store, "--teacher.weights", file)
    assert f"{file}: the model was trained with these channels in another o" in message
    assert f"--data.channels {' '.join(TEN_TWENTY)}." in message
