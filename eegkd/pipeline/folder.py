"""The run folder: what was asked, what came out, and how to repeat it."""

import dataclasses
import importlib.metadata
import json
import platform
import typing
from pathlib import Path
from typing import Any

import numpy as np

from eegkd.errors import InputError
from eegkd.files import write_atomic

PACKAGES = ("eegkd", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy",
            "scipy", "scikit-learn", "mne", "wfdb", "timescoring")  # fmt: skip


def to_json(value: Any) -> Any:
    """Turns configs, arrays and numbers into what JSON holds; NaN becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically.

    Raises:
        InputError: If the folder is read-only or full.
    """
    write_atomic(path, json.dumps(to_json(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run folder.

    Raises:
        InputError: If it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path.parent} is no run folder: it has no {path.name}.")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: damaged JSON ({error}).") from error


def open_run(folder: Path, record: dict[str, Any]) -> None:
    """Makes the run folder, or continues one that was started with the same options.

    Raises:
        InputError: If the folder holds a run with other options.
    """
    record = to_json(record)
    path = folder / "config.json"
    if path.is_file():
        old = read_json(path)
        for key in sorted(old["run"].keys() | record["run"].keys()):
            was, now = old["run"].get(key), record["run"].get(key)
            if was != now and key != "out":
                raise InputError(
                    f"{folder} holds a run with another `{key}`: {_differs(was, now)} "
                    "Choose another --out, or resume it as it is with "
                    f"`eegkd distill --resume {folder}`."
                )
        return
    write_json(path, record | {"versions": versions()})


def _differs(was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in was.keys() | now.keys():
            if was.get(key) != now.get(key):
                return f"{key} was {was.get(key)}, now {now.get(key)}."
    return f"it was {was}, now {now}."


def versions() -> dict[str, str]:
    """Lists the versions that a repetition needs."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def from_json(cls: type, value: Any) -> Any:
    """Rebuilds a frozen config from what `to_json` made of it.

    Raises:
        InputError: If a field is unknown: the file is of another version.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise InputError(
            f"config.json has unknown fields {unknown}: it was written by another "
            "version of eegkd."
        )
    return cls(**{name: _cast(hints[name], item) for name, item in value.items()})


def _cast(hint: Any, item: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), item)
    return tuple(item) if isinstance(item, list) else item
