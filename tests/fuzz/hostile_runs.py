"""Hostile runs, stores and weights, each of which once was a fault."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import formats, mutations
from tests.fuzz.cases import EITHER, case


def _json(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return write


_STUDENT = "run/fold0/student/seed0"
for _name, _change in {
    "list": lambda _: [],
    "deep": lambda _: json.loads("[" * 900 + "]" * 900),
    "run_list": lambda x: x | {"run": []},
    "depth_text": lambda x: x | {"run": x["run"] | {"eeg": {"depth": "two"}}},
    "depth_huge": lambda x: x | {"run": x["run"] | {"eeg": {"depth": 10**9}}},
    "seed_text": lambda x: x | {"run": x["run"] | {"seed": "a"}},
    "data_list": lambda x: x | {"run": x["run"] | {"data": []}},
    "channels_text": lambda x: (
        x | {"run": x["run"] | {"data": x["run"]["data"] | {"channels": "C3"}}}
    ),
}.items():
    case(f"config_{_name}", "config_json", words=("config.json",))(
        _json("run/config.json", _change)
    )
for _name, _change in {
    "list": lambda _: [],
    "files_list": lambda x: x | {"files": ["a"]},
    "files_numbers": lambda x: x | {"files": dict.fromkeys(x["files"], 5)},
}.items():
    case(f"done_{_name}", "run", words=("done.json",))(
        _json(f"{_STUDENT}/done.json", _change)
    )


def _reseal(folder: Path, name: str) -> None:
    """Writes a file's hash into done.json, as who forges one would."""
    from eegkd.host.sealed import hash_file

    done = folder / _STUDENT / "done.json"
    record = json.loads(done.read_text())
    record["files"][name] = hash_file(folder / _STUDENT / name)
    done.write_text(json.dumps(record))


def _predicted(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / _STUDENT / "val.npz"
        with np.load(path) as file:
            columns = {name: file[name] for name in file.files}
        change(columns)
        np.savez_compressed(path, **columns)
        _reseal(folder, "val.npz")

    return write


case("run_probabilities_nan", "run", words=("val.npz",))(
    _predicted(lambda x: x["prob"].fill(np.nan))
)
case("run_probabilities_large", "run", words=("val.npz",))(
    _predicted(lambda x: np.add(x["prob"], 2, out=x["prob"]))
)
case("run_window_ids_of_others", "run", words=("val.npz",))(
    _predicted(lambda x: np.add(x["window_id"], 10**6, out=x["window_id"]))
)


def _weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / _STUDENT / "variables.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        _reseal(folder, path.name)

    return write


def _first(tensors: dict[str, Any], change: Callable[[np.ndarray], np.ndarray]) -> None:
    name = next(name for name in sorted(tensors) if name.endswith("kernel"))
    tensors[name] = change(tensors[name])


case("run_weights_of_int32", "run", words=("variables.safetensors",))(
    _weights(lambda x: _first(x, lambda a: a.astype(np.int32)))
)
case("run_weights_nan", "run", words=("variables.safetensors",))(
    _weights(lambda x: _first(x, lambda a: a * np.float32("nan")))
)


@case("store_one_bit", "store", words=("signal.npy",))
def _one_bit(folder: Path) -> None:
    path = folder / "store" / "signal.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def _saved(**tensors: np.ndarray) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from safetensors.numpy import save_file

        named = {name.replace("__", "/"): a for name, a in tensors.items()}
        save_file(named, folder / "a.safetensors")

    return write


_ONE = np.ones(3, np.float32)
_FILE = ("a.safetensors",)
case("safetensors_folder_and_leaf", "safetensors", words=_FILE)(
    _saved(params__a=_ONE, params__a__b=_ONE)
)
case("safetensors_nan", "safetensors", words=_FILE)(_saved(params__a=_ONE * np.nan))
case("safetensors_of_other_groups", "safetensors", words=_FILE)(_saved(a__b=_ONE))


@case("safetensors_header_of_2_to_60", "safetensors", words=_FILE)
def _long_header(folder: Path) -> None:
    path = folder / "a.safetensors"
    path.write_bytes((1 << 60).to_bytes(8, "little") + path.read_bytes()[8:])


case("llama_layers_1e9", "llama")(
    _json("config.json", lambda x: x | {"num_hidden_layers": 10**9})
)
case("llama_vocabulary_1e12", "llama")(
    _json("config.json", lambda x: x | {"vocab_size": 10**12})
)
case("llama_heads_0", "llama")(
    _json("config.json", lambda x: x | {"num_attention_heads": 0})
)
case("llama_index_outside", "llama")(
    _json(
        "model.safetensors.index.json",
        lambda x: {"weight_map": dict.fromkeys(x["weight_map"], "../../a.safetensors")},
    )
)
case("torch_pickled", "torch")(
    lambda folder: (folder / "a.pth").write_bytes(pickle.dumps(formats.Planted()))
)
case("checkpoint_meta_list", "checkpoint", EITHER)(
    lambda folder: (folder / "checkpoints/00000007/meta.json").write_text("[]")
)
case("checkpoint_meta_deep", "checkpoint", EITHER)(
    lambda folder: (folder / "checkpoints/00000007/meta.json").write_text(
        mutations.DEEP
    )
)
case("manifest_deep", "store", words=("manifest.json",))(
    lambda folder: (folder / "store/manifest.json").write_text(mutations.DEEP)
)
