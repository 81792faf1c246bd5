"""Options of a run that are paths, which it names in full."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypeVar

Options = TypeVar("Options")

_PATH = "path"
PathText = Annotated[str, _PATH]
"""Type of an option that is the path of a file or a folder to read; "" is none."""


def in_full(options: Options) -> Options:
    """Returns options whose paths can be read from any folder.

    Args:
        options: A frozen dataclass, with others inside; its paths are `PathText`.
    """
    new: dict[str, Any] = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value: Any = getattr(options, field.name)
        if dataclasses.is_dataclass(type(value)):
            whole = in_full(value)
        elif value and _PATH in getattr(field.type, "__metadata__", ()):
            whole = str(Path(value).expanduser().absolute())
        else:
            continue
        if whole != value:
            new[field.name] = whole
    return dataclasses.replace(options, **new) if new else options  # type: ignore
