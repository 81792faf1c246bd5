"""Files of PyTorch and Keras: what they hold is read, and nothing in them is run."""

import argparse
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from eegkd.convert import read_torch, read_weights
from eegkd.errors import InputError
from eegkd.models import load_pretrained

pytestmark = pytest.mark.parity


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}])
def test_tensors_are_read_by_name(tmp_path, torch, wrap):
    state = {"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(wrap(state), tmp_path / "weights.pth")
    for path in (tmp_path, tmp_path / "weights.pth"):
        found = read_weights(path)
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
        assert found["b"].dtype == np.float32


def test_arguments_of_a_script_do_no_harm(tmp_path, torch):
    whole = {"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=1.0)}
    torch.save(whole, tmp_path / "weights.pth")
    assert set(read_torch(tmp_path / "weights.pth")) == {"a"}


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


def test_pickled_code_is_not_run(tmp_path, torch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Harmful()}, "weights.pth")
    with pytest.raises(InputError, match="holds Python objects beside tensors"):
        read_torch("weights.pth")
    assert not Path("made_by_a_pickle").exists()


@pytest.mark.parametrize("spoil", ["truncated", "no tensors"])
def test_broken_files_are_refused(tmp_path, torch, spoil):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(100)} if spoil == "truncated" else {"lr": 0.1}, path)
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"weights.pth: .*(again|state_dict)"):
        read_torch(path)


def test_one_number_that_is_repeated_takes_no_memory(tmp_path, torch):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1, dtype=torch.float16).expand(10**12)}, path)
    with pytest.raises(InputError, match="a is no dense tensor .*2,000,000,000,000 by"):
        read_torch(path)


def test_what_is_no_dense_tensor_is_named(tmp_path, torch):
    path = tmp_path / "weights.pth"
    for tensor in (torch.eye(3).to_sparse(), torch.empty(3, device="meta")):
        torch.save({"a": tensor}, path)
        with pytest.raises(InputError, match=r"weights\.pth"):
            read_torch(path)


def test_wrappers_are_no_part_of_names(tmp_path, torch):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"model._orig_mod.a": torch.arange(3.0)}}, path)
    np.testing.assert_array_equal(read_weights(path)["a"], [0, 1, 2])


def keras_weights(file):
    """Weights by layer, in the order in which the file lists them."""
    groups = file["model_weights"]
    return {
        layer: [
            np.asarray(groups[layer][name], np.float64)
            for name in groups[layer].attrs["weight_names"].astype(str)
        ]
        for layer in groups.attrs["layer_names"].astype(str)
    }


def keras_eegnet(x, w):
    """Renders Keras' layers, filters first, for one signal `[c, t]`."""

    def norm(x, name):
        gamma, beta, mean, variance = (a[:, None, None] for a in w[name])
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def same(row, taps):
        left = (len(taps) - 1) // 2
        padded = np.pad(row, (left, len(taps) - 1 - left))
        return np.correlate(padded, taps, "valid")

    def pool(x, size):
        steps = x.shape[-1] // size
        return x[..., : steps * size].reshape(*x.shape[:-1], steps, size).mean(-1)

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    kernel = w["conv2d"][0][0, :, 0]
    x = np.stack([[same(row, taps) for row in x] for taps in kernel.T])
    x = norm(x, "batch_normalization")
    spatial = w["depthwise_conv2d"][0][:, 0]
    maps = [
        np.tensordot(spatial[:, f, m], x[f], 1)[None]
        for f in range(spatial.shape[1])
        for m in range(spatial.shape[2])
    ]
    x = pool(elu(norm(np.stack(maps), "batch_normalization_1")), 4)
    depthwise, pointwise = w["separable_conv2d"]
    x = np.stack([[same(x[i, 0], depthwise[0, :, i, 0])] for i in range(len(x))])
    x = np.einsum("ict,io->oct", x, pointwise[0, 0])
    x = pool(elu(norm(x, "batch_normalization_2")), 8)
    kernel, bias = w["dense"]
    return x[:, 0], x.reshape(-1) @ kernel + bias


@pytest.fixture(scope="module")
def keras_file():
    if "EEGKD_REAL_DATA" not in os.environ:
        pytest.skip("EEGKD_REAL_DATA is unset: it names the folder of real data")
    path = Path(os.environ["EEGKD_REAL_DATA"], "weights", "EEGNet-8-2-weights.h5")
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path


def test_eegnet_reproduces_keras_layers(keras_file):
    h5py = pytest.importorskip("h5py")
    module, variables = load_pretrained("eegnet", keras_file)
    cfg = module.cfg
    assert (cfg.n_chans, cfg.n_outputs, cfg.taps) == (60, 4, (32, 16))
    assert (cfg.max_norm, cfg.head_max_norm) == (1.0, 0.25)
    x = np.random.default_rng(0).normal(size=(3, 60, 151)).astype(np.float32)
    with jax.default_matmul_precision("float32"):
        got = jax.jit(module.apply)(variables, x)
    with h5py.File(keras_file) as file:
        weights = keras_weights(file)
    for i in range(3):
        maps, logits = keras_eegnet(np.float64(x[i]), weights)
        scale = np.abs(logits).max()
        assert np.abs(got["tokens"][i] - maps.T).max() < 1e-5 * np.abs(maps).max()
        assert np.abs(got["logits"][i] - logits).max() < 1e-5 * scale


def test_other_hdf5_files_are_refused(tmp_path, keras_file):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "model.h5"
    with pytest.raises(InputError, match=r"model.h5: no such file.*model.save"):
        load_pretrained("eegnet", path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="download it again"):
        load_pretrained("eegnet", path)
    with h5py.File(path, "w") as file:
        file["a"] = np.ones(2)
    with pytest.raises(InputError, match="no model_config and model_weights"):
        load_pretrained("eegnet", path)
    path.write_bytes(keras_file.read_bytes())
    with h5py.File(path, "a") as file:
        text = file.attrs["model_config"]
        text = text.decode() if isinstance(text, bytes) else text
        file.attrs["model_config"] = text.replace('"elu"', '"relu"')
    with pytest.raises(InputError, match=r"activation is \['relu', 'relu'\], not"):
        load_pretrained("eegnet", path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = text.replace("SeparableConv2D", "Conv2D")
    with pytest.raises(InputError, match=r"layers with weights are Conv2D.*EEGNet's"):
        load_pretrained("eegnet", path)
