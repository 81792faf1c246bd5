"""Variables on disk: one safetensors file, nested names joined by "/"."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from eegkd.convert.safetensors import check_finite, read_tensors
from eegkd.errors import InputError
from eegkd.host.atomic import write_atomic
from eegkd.host.sealed import first_difference
from eegkd.typing import Variables


def save_variables(path: Path, variables: Variables) -> None:
    """Writes `params`, `frozen` and `state` atomically.

    Raises:
        InputError: If the folder is read-only or full.
    """
    write_atomic(path, save(named_arrays(variables)))


def named_arrays(variables: Variables) -> dict[str, np.ndarray]:
    """Returns the arrays by their names in a file, as "params/head/kernel"."""
    arrays: dict[str, np.ndarray] = {}
    for group, tree in variables._asdict().items():
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        for keys, leaf in leaves:
            name = "/".join([group, *(str(key.key) for key in keys)])
            arrays[name] = np.asarray(leaf, order="C")
    return arrays


def load_variables(path: Path) -> Variables:
    """Reads variables that `save_variables` wrote.

    Raises:
        InputError: If the file is missing, damaged, or holds NaN or infinity.
    """
    arrays = read_tensors(path, "Put a copy of the file back, or train anew.")
    groups: dict[str, Any] = {name: {} for name in Variables._fields}
    for name, array in arrays.items():
        check_finite(path, name, array)
        if not _put(groups, name.split("/"), array):
            raise InputError(
                f"{path}: {name!r} is no parameter, or is one and has others inside. "
                "Put a copy of the file back, or train anew."
            )
    return Variables(**groups)


def _put(groups: dict[str, Any], path: list[str], array: np.ndarray) -> bool:
    """Puts an array in its place among nested names; False if there is none."""
    group, *folders, leaf = path if len(path) > 1 else ("", "")
    place = groups.get(group)
    for folder in folders:
        place = place.setdefault(folder, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict) or leaf in place:
        return False
    place[leaf] = array
    return True


def check_same_shapes(path: Path, loaded: Variables, expected: Variables) -> None:
    """Checks that weights fit a model.

    Raises:
        InputError: Naming the first entry that is missing, left over or of another
            type or shape.
    """
    differing = first_difference(_shapes(loaded), _shapes(expected))
    if differing is not None:
        name, have, want = differing
        raise InputError(
            f"{path} holds another model: {name} is {have or 'missing'} there and "
            f"{want or 'absent'} in this configuration. Use the run's own config.json, "
            "or train anew."
        )


def _shapes(variables: Variables) -> Mapping[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }
