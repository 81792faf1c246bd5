"""Parts that are found by name: modules of a package, and third parties' entry points.

Parts are imported only on request. A distribution adds a part by an entry point
in its `pyproject.toml`, whose value is a module that looks like those of the package:

    [project.entry-points."eegkd.corpora"]
    mine = "my_package.mine"
"""

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from eegkd.errors import InputError


def find_names(package: str, group: str, *, folders: bool = False) -> tuple[str, ...]:
    """Lists the names of a package's modules and of a group's entry points.

    Args:
        package: Dotted name of the package.
        group: Group of the entry points.
        folders: List the sub-packages only, and not the modules.
    """
    own = _own(package, folders)
    return tuple(sorted({*own, *(point.name for point in entry_points(group=group))}))


def load_part(
    package: str, group: str, name: str, *, what: str, folders: bool = False
) -> Any:
    """Imports one part; returns None if there is none of this name.

    Args:
        package: Dotted name of the package.
        group: Group of the entry points.
        name: Name of the part.
        what: Kind of the parts, for messages: "corpus".
        folders: Take sub-packages only, and not modules.

    Raises:
        InputError: If a plugin's name is taken, or it cannot be imported.
    """
    points = [point for point in entry_points(group=group) if point.name == name]
    if name in _own(package, folders):
        if points:
            raise _taken(what, points[0], "eegkd")
        return importlib.import_module(f"{package}.{name}")
    if not points:
        return None
    if len(points) > 1:
        raise _taken(what, points[0], _distribution(points[1]))
    try:
        return points[0].load()
    except Exception as error:  # Whatever a third party's code raises.
        owner = _distribution(points[0])
        raise InputError(
            f"The {what} {name} of the distribution {owner} cannot be imported from "
            f"{points[0].value} ({type(error).__name__}: {error}). Mend, update or "
            f"uninstall {owner}."
        ) from error


def _own(package: str, folders: bool) -> frozenset[str]:
    path = importlib.import_module(package).__path__
    return frozenset(
        module.name
        for module in pkgutil.iter_modules(path)
        if not module.name.startswith("_") and (module.ispkg or not folders)
    )


def _taken(what: str, point: EntryPoint, other: str) -> InputError:
    owner = _distribution(point)
    return InputError(
        f"The {what} {point.name} of the distribution {owner} ({point.value}) has a "
        f"name that {other} has taken. Rename its entry point in the group "
        f"{point.group}, or uninstall {owner}."
    )


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "of no name"
