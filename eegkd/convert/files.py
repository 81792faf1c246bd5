"""Reads a folder or a file of weights, whatever framework wrote it."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.convert.safetensors import (
    read_config,
    read_safetensors,
    renamed,
    unwrapped,
)
from eegkd.errors import InputError

_TORCH = (".pth", ".pt", ".bin")
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def read_weights(folder_or_file: str | Path) -> dict[str, np.ndarray]:
    """Reads tensors by name, float16 and bfloat16 as float32.

    Names are without what wrappers put before them: `module.`, `model.`, `_orig_mod.`.

    Args:
        folder_or_file: A safetensors or PyTorch file, or a folder with safetensors
            files or one PyTorch file.

    Raises:
        InputError: If there is none, or it is broken.
    """
    return renamed(folder_or_file, _read(Path(folder_or_file)), _bare)


def _bare(name: str) -> str:
    while (new := unwrapped(name).removeprefix("model.")) != name:
        name = new
    return name


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir() and not any(path.glob("*.safetensors")):
        files = [file for file in sorted(path.iterdir()) if file.suffix in _TORCH]
        if len(files) == 1:
            return read_torch(files[0])
        found = f"{len(files)} PyTorch files" if files else "no PyTorch file either"
        raise InputError(
            f"{path}: no *.safetensors file, and {found}; name the file of weights."
        )
    if path.is_dir() or path.suffix == ".safetensors":
        return read_safetensors(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file or folder of weights; download it first."
        )
    if path.suffix in _TORCH:
        return read_torch(path)
    raise InputError(
        f"{path}: {path.suffix or 'no'} suffix is not known; weights are .safetensors, "
        f"{', '.join(_TORCH)}, or a folder with such a file."
    )


def read_optional_config(
    folder_or_file: str | Path, shape: Any = dict
) -> dict[str, Any]:
    """Reads `config.json` from the weights' folder; empty where there is none.

    Args:
        folder_or_file: Folder of the weights, or a file in it.
        shape: Shape of the fields that are read, for `shapes.fit`.

    Raises:
        InputError: If it is no JSON, or a field is of another type.
    """
    path = Path(folder_or_file)
    folder = path if path.is_dir() else path.parent
    return read_config(folder, shape) if (folder / "config.json").is_file() else {}


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch file of tensors; code that is pickled in it is never run.

    Raises:
        InputError: If it is broken or holds anything else, or torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: reading PyTorch files needs torch: pip install 'eegkd[weights]'."
        ) from None
    try:
        # Arguments of a training script, which LaBraM keeps with its weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: broken, or holds Python objects beside tensors, which are not "
            "loaded: download it again, or save the state dict alone."
        ) from None
    except Exception as error:  # Whatever its readers of zips and pickles raise.
        raise InputError(
            f"{path}: broken ({type(error).__name__}: {error}); download it again."
        ) from None
    most = Path(path).stat().st_size
    return {
        name: _to_numpy(path, name, tensor, most)
        for name, tensor in _state(path, found).items()
    }


def _state(path: str | Path, found: Any) -> Mapping[str, Any]:
    for name in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and hasattr(tensor, "detach")
        for name, tensor in found.items()
    ):
        raise InputError(
            f"{path}: no state dict of tensors by name, nor one under "
            f"{', '.join(_WRAPPERS)}; save the model's state_dict()."
        )
    return found


def _to_numpy(path: str | Path, name: str, tensor: Any, most: int) -> np.ndarray:
    """Returns a dense tensor, which has no more bytes than its file."""
    try:
        # One number that is repeated by a stride of zero takes no bytes there.
        size = tensor.numel() * tensor.element_size()
        if size > most:
            raise ValueError(f"{size:,} bytes, of a file of {most:,}")
        tensor = tensor.detach()
        narrow = tensor.is_floating_point() and tensor.element_size() < 4
        return (tensor.float() if narrow else tensor).numpy()
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: {name} is no dense tensor ({error}): save the model's "
            "state_dict() on a CPU, in float32."
        ) from None
