"""Reads safetensors as NumPy arrays, and compares names of tensors with a model's."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from eegkd.errors import InputError
from eegkd.host.json_file import read_json


def read_config(folder: str | Path, shape: Any = dict) -> dict[str, Any]:
    """Reads `config.json` of a folder of weights.

    Args:
        folder: Folder of the weights.
        shape: Shape of the fields that are read, for `shapes.fit`.

    Raises:
        InputError: If it is missing, no JSON object, or a field is of another type.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(
            f"{path}: no readable file; a folder of weights needs config.json and "
            "model.safetensors (a name on a hub is no folder: download it first)."
        )
    return read_json(path, shape, cure="Download it again.", strict=False)


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
        part = read_tensors(path, "Download it again.")
        tensors |= {name: _at_least_float32(array) for name, array in part.items()}
    return tensors


def read_tensors(path: Path, cure: str) -> dict[str, np.ndarray]:
    """Reads one safetensors file.

    Args:
        path: The file.
        cure: Sentence that ends an error.

    Raises:
        InputError: If it is missing, truncated, or holds types that NumPy lacks.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights. {cure}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged file of weights ({error}). {cure}") from None


def check_finite(source: str | Path, name: str, array: np.ndarray) -> None:
    """Refuses weights that are not finite as float32, the type they are used in.

    Raises:
        InputError: If a value is NaN, infinite, or beyond float32.
    """
    if array.dtype.kind in "iub":
        return
    with np.errstate(over="ignore"):
        good = np.isfinite(array.astype(np.float32, copy=False))
    if not good.all():
        where = list(map(int, np.argwhere(~good)[0]))
        raise InputError(
            f"{source}: {name}{where} is {array[tuple(where)]}, which is no finite "
            f"float32, as are {int((~good).sum()):,} of {good.size:,} values. A "
            "training that diverged leaves such files: take another."
        )


def unwrapped(name: str) -> str:
    """Removes what torch.compile and DataParallel put around a tensor's name."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def renamed(
    source: str | Path, tensors: Mapping[str, Any], rename: Callable[[str], str]
) -> dict[str, Any]:
    """Returns tensors by other names.

    Raises:
        InputError: If two of them then have one name.
    """
    found: dict[str, Any] = {}
    for name, array in tensors.items():
        new = rename(name)
        if new in found:
            raise InputError(
                f"{source}: {name} and another tensor are one parameter, {new}. Save "
                "the weights of one model."
            )
        found[new] = array
    return found


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
