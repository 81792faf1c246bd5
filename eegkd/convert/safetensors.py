"""Reads safetensors as NumPy arrays, and compares names of tensors with a model's."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from eegkd.errors import InputError


def read_config(folder: str | Path) -> dict:
    """Reads `config.json` of a folder of weights.

    Raises:
        InputError: If it is missing or is no JSON object.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{path}: no readable file; a folder of weights needs config.json and "
            "model.safetensors (a name on a hub is no folder: download it first)."
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); download it again.") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: need a JSON object; got {type(config).__name__}.")
    return config


def read_safetensors(folder_or_file: str | Path) -> dict[str, np.ndarray]:
    """Reads every `*.safetensors` file of a folder, float16 and bfloat16 as float32.

    Raises:
        InputError: If there is none, or one is truncated.
    """
    given = Path(folder_or_file)
    paths = [given] if given.is_file() else sorted(given.glob("*.safetensors"))
    if not paths:
        raise InputError(
            f"{given}: no *.safetensors file; download model.safetensors into it."
        )
    tensors: dict[str, np.ndarray] = {}
    for path in paths:
        try:
            part = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: {error}; download it again.") from None
        tensors |= {name: _at_least_float32(array) for name, array in part.items()}
    return tensors


def _at_least_float32(array: np.ndarray) -> np.ndarray:
    narrow = array.dtype.itemsize < 4 and array.dtype.kind not in "iub"
    return array.astype(np.float32) if narrow else array


def check_names(
    source: str | Path,
    found: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    model: str = "config.json",
) -> None:
    """Checks tensors against a model's, and reports all differences at once.

    Args:
        source: Origin of the tensors, for the message.
        found: Tensors by name.
        wanted: Shapes by name.
        model: Origin of the wanted shapes, for the message.

    Raises:
        InputError: If a name is missing or unexpected, or a shape differs.
    """
    problems = name_differences(found, wanted)
    if problems:
        raise InputError(
            f"{source}: the weights do not fit {model}: {'; '.join(problems)}. "
            "Download them again, or name the model that they are of."
        )


def name_differences(
    found: Mapping[str, Any],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    ignored: Iterable[str] = (),
) -> list[str]:
    """Lists missing and unexpected names, and other shapes; as `check_names`.

    Args:
        found: Anything with a shape, by name.
        wanted: Shapes by name.
        ignored: Names that may be there and are not used.
    """
    problems = [f"missing {name}" for name in wanted if name not in found]
    ignored = set(ignored)
    problems += [
        f"unexpected {name}"
        for name in found
        if name not in wanted and name not in ignored
    ]
    return problems + [
        f"{name} has shape {found[name].shape}, not {shape}"
        for name, shape in wanted.items()
        if name in found and found[name].shape != tuple(shape)
    ]
