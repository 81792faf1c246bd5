"""Fields of a Hugging Face `config.json`, with one message for all their faults."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegkd.convert.safetensors import read_config
from eegkd.errors import InputError

_LOADERS = {
    "bert": "bert",
    "clip": "clip",
    "clip_text_model": "clip",
    "clip_vision_model": "clip",
    "llama": "llama",
    "llava": "llava",
    "llava_next": "llava",
    "qwen2": "qwen2",
}
"""Names for `load_pretrained` by `model_type`."""

_LARGEST = 1e30
"""What no number in a config exceeds; float32 ends at 3e38."""


class Section(NamedTuple):
    """A part of a `config.json`.

    Attributes:
        values: Fields of the part.
        where: Prefix of a field's name in a message, as "text_config.".
        problems: Faults noted so far; shared by all parts of a file.
    """

    values: Mapping[str, Any]
    where: str
    problems: list[str]

    def inner(self, name: str) -> "Section":
        """Returns a nested part; notes a missing one, and returns it empty."""
        values = self.values.get(name)
        if not isinstance(values, Mapping):
            self.problems.append(f"{self.where}{name} is missing or no object")
            values = {}
        # Very old files of CLIP have the values that count in a second place.
        second = self.values.get(f"{name}_dict")
        values = {**values, **(second if isinstance(second, Mapping) else {})}
        return Section(values, f"{self.where}{name}.", self.problems)

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a field, the default also in place of null."""
        value = self.values.get(name)
        return default if value is None else value

    def size(self, name: str, default: int | None = None) -> int:
        """Returns a positive whole number; notes any other value, and returns 1."""
        value = self.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self.problems.append(
            f"{self.where}{name} has to be a positive whole number; got {value!r}"
        )
        return 1

    def number(self, name: str, default: float) -> float:
        """Returns a positive number; notes any other value, and returns the default."""
        value = self.get(name, default)
        if _is_number(value) and 0 < value <= _LARGEST:
            return float(value)
        self.problems.append(
            f"{self.where}{name} has to be a positive number; got {value!r}"
        )
        return default

    def share(self, name: str, default: float) -> float:
        """Returns a number in [0, 1); notes any other value, and returns 0."""
        value = self.get(name, default)
        if _is_number(value) and 0 <= value < 1:
            return float(value)
        self.problems.append(
            f"{self.where}{name} has to be a number in [0, 1); got {value!r}"
        )
        return 0.0

    def divides(self, small: int, large: int, names: str) -> None:
        """Notes a fault if one size does not divide another that it has to."""
        if large % small:
            self.problems.append(
                f"{self.where}{names}: {small} does not divide {large}"
            )

    def one_of(self, name: str, allowed: tuple[Any, ...], default: Any = None) -> Any:
        """Returns one of the allowed values; notes any other, and returns the first."""
        value = self.get(name, default)
        if value in allowed:
            return value
        wanted = " or ".join(repr(each) for each in allowed)
        self.problems.append(f"{self.where}{name} has to be {wanted}; got {value!r}")
        return allowed[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def open_config(folder: str | Path) -> Section:
    """Reads a folder's `config.json`.

    Raises:
        InputError: If it is missing or is no JSON object.
    """
    return Section(read_config(folder), "", [])


def check_type(folder: str | Path, found: Any, allowed: Collection[str]) -> None:
    """Checks that a folder is of a wanted model, before its fields are read.

    Args:
        folder: Folder of the `config.json`.
        found: The file's `model_type`.
        allowed: Types that are wanted.

    Raises:
        InputError: If it is another one; the message names the loader for it.
    """
    if isinstance(found, str) and found in allowed:
        return
    wanted = " or ".join(repr(each) for each in allowed)
    cure = (
        f'load it as load_pretrained("{_LOADERS[found]}", ...).'
        if isinstance(found, str) and found in _LOADERS
        else f"take weights of a known type: {', '.join(_LOADERS)}."
    )
    raise InputError(
        f"{Path(folder) / 'config.json'}: model_type has to be {wanted}; got "
        f"{found!r}: {cure}"
    )


def refuse_problems(folder: str | Path, config: Section) -> None:
    """Raises one error for all faults noted.

    Raises:
        InputError: If there are any; the message lists them all.
    """
    if config.problems:
        raise InputError(
            f"{Path(folder) / 'config.json'}: {'; '.join(config.problems)}. If the "
            "file was edited, download it again; if not, these weights are of an "
            "architecture that is not supported: take others."
        )
