"""EEGNet weights from HDF5 files of Keras."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from eegkd.convert.safetensors import check_finite
from eegkd.convert.tables import Pairs
from eegkd.errors import InputError
from eegkd.host.arrays import FREE_BYTES, MOST_INFLATED
from eegkd.host.json_file import parse_json
from eegkd.host.shapes import fit

_KINDS = (
    "Conv2D",
    "BatchNormalization",
    "DepthwiseConv2D",
    "BatchNormalization",
    "SeparableConv2D",
    "BatchNormalization",
    "Dense",
)
_POOLS = ([1, 4], [1, 8])
_CURE = "save EEGNet-8,2 of arl-eegmodels with tf.keras' model.save('name.h5')."


class _Named(TypedDict):
    name: str


class _Entry(TypedDict):
    class_name: str
    config: _Named


class _Layers(TypedDict):
    layers: list[_Entry]


class _Model(TypedDict):
    """Shape of `model_config`."""

    config: _Layers


class _Layer(NamedTuple):
    kind: str
    config: Mapping[str, Any]
    weights: Sequence[np.ndarray]


def load_eegnet(path: str | Path) -> tuple[dict[str, Any], Pairs]:
    """Reads an EEGNet that Keras saved with architecture and weights.

    The architecture is needed to know in which order the head sees features.

    Returns:
        Keyword arguments of `models.EEGNetConfig`, and variables by path, which begins
        with the collection.

    Raises:
        InputError: If the file is missing, broken or of another model, or h5py is not
            installed.
    """
    layers = _read(Path(path))
    _check(path, layers)
    weighty = [layer for layer in layers if layer.weights]
    conv, norm_1, spatial, norm_2, separable, norm_3, dense = weighty
    depthwise, pointwise = separable.weights
    head = dense.weights[0]
    width, outputs = pointwise.shape[-1], head.shape[-1]
    if len(head) % width:
        raise InputError(
            f"{path}: {_name(dense)} has {len(head)} inputs, no multiple of {width} "
            f"filters; {_CURE}"
        )
    if conv.config.get("data_format") == "channels_first":
        # Keras flattens filters first; here steps in time come first.
        head = head.reshape(width, -1, outputs).swapaxes(0, 1).reshape(-1, outputs)
    config = {
        "n_chans": spatial.weights[0].shape[0],
        "n_outputs": outputs,
        "num_filters": conv.weights[0].shape[-1],
        "multiplier": spatial.weights[0].shape[-1],
        "kernel": conv.weights[0].shape[1],
        "separable_kernel": depthwise.shape[1],
        "max_norm": _bound(spatial, "depthwise_constraint"),
        "head_max_norm": _bound(dense, "kernel_constraint"),
    }
    pairs: Pairs = [
        (("params", "temporal"), conv.weights[0][0, :, 0]),
        (("params", "spatial"), spatial.weights[0][:, 0]),
        (("params", "depthwise"), depthwise[0, :, :, 0]),
        (("params", "pointwise", "kernel"), pointwise[0, 0]),
        (("params", "head"), head),
        (("params", "head_bias"), dense.weights[1]),
    ]
    names = ("temporal_norm", "spatial_norm", "separable_norm")
    for name, layer in zip(names, (norm_1, norm_2, norm_3), strict=True):
        gamma, beta, mean, variance = layer.weights
        pairs += [
            (("params", name, "scale"), gamma),
            (("params", name, "bias"), beta),
            (("batch_stats", name, "mean"), mean),
            (("batch_stats", name, "var"), variance),
        ]
    return config, [(key, np.ascontiguousarray(array)) for key, array in pairs]


def _read(path: Path) -> list[_Layer]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: reading HDF5 files needs h5py: pip install 'eegkd[weights]'."
        ) from None
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_CURE}")
    try:
        with h5py.File(path) as file:
            return _layers(path, file)
    except InputError:
        raise
    except Exception as error:  # Whatever h5py raises at a damaged file.
        raise InputError(
            f"{path}: broken ({type(error).__name__}: {error}); download it again."
        ) from None


def _layers(path: Path, file: Any) -> list[_Layer]:
    if "model_weights" not in file or "model_config" not in file.attrs:
        raise InputError(
            f"{path}: no model_config and model_weights, so this is no whole Keras "
            f"model; {_CURE}"
        )
    groups = file["model_weights"]
    described: _Model = fit(
        _Model, parse_json(_text(file.attrs["model_config"]), strict=False)
    )
    layers = []
    for entry in described["config"]["layers"]:
        config = entry["config"]
        name = config["name"]
        names = groups[name].attrs["weight_names"] if name in groups else ()
        weights = [_array(path, groups[name][_text(key)]) for key in names]
        layers.append(_Layer(entry["class_name"], config, weights))
    return layers


def _array(path: Path, stored: Any) -> np.ndarray:
    """Reads a dataset, whose values may be packed but take no more than the limit."""
    if stored.size * stored.dtype.itemsize > max(
        MOST_INFLATED * path.stat().st_size, FREE_BYTES
    ):
        raise ValueError(f"{stored.name} grows to {stored.size:,} numbers")
    array = np.asarray(stored)
    check_finite(path, stored.name, array)
    return array.astype(np.float32)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _check(path: str | Path, layers: Sequence[_Layer]) -> None:
    """Compares kinds and configurations of layers with EEGNet's."""
    kinds = tuple(layer.kind for layer in layers if layer.weights)
    if kinds != _KINDS:
        raise InputError(
            f"{path}: layers with weights are {', '.join(kinds) or 'none'}; EEGNet's "
            f"are {', '.join(_KINDS)}; {_CURE}"
        )
    pools = [x.config["pool_size"] for x in layers if x.kind == "AveragePooling2D"]
    functions = [x.config["activation"] for x in layers if x.kind == "Activation"]
    wanted: list[tuple[str, Any, Any]] = [
        ("pool_size", [list(pool) for pool in pools], list(_POOLS)),
        ("activation", functions[:2], ["elu", "elu"]),
    ]
    for layer in layers:
        wanted += [
            (f"{_name(layer)}.{field}", layer.config[field], value)
            for field, value in _fields(layer).items()
            if field in layer.config
        ]
    wrong = [
        f"{name} is {found}, not {value}"
        for name, found, value in wanted
        if found != value
    ]
    if wrong:
        raise InputError(f"{path}: model_config: {'; '.join(wrong)}; {_CURE}")


def _fields(layer: _Layer) -> dict[str, Any]:
    """Checks fields of a layer's configuration, if they are present."""
    if layer.kind == "BatchNormalization":
        return {"epsilon": 1e-3, "scale": True, "center": True}
    if layer.kind in ("Conv2D", "SeparableConv2D"):
        return {"padding": "same", "use_bias": False, "activation": "linear"}
    if layer.kind == "DepthwiseConv2D":
        return {"padding": "valid", "use_bias": False, "activation": "linear"}
    if layer.kind == "Dense":
        return {"use_bias": True}
    return {}


def _name(layer: _Layer) -> str:
    return str(layer.config.get("name", layer.kind))


def _bound(layer: _Layer, field: str) -> float:
    """Returns the bound of a norm, or none (infinity) where the layer has none."""
    constraint = layer.config.get(field)
    return float("inf") if constraint is None else constraint["config"]["max_value"]
