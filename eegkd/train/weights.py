"""Variables on disk: one safetensors file, nested names joined by "/"."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

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
        InputError: If the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights.")
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged file of weights ({error}).") from error
    groups: dict[str, Any] = {"params": {}, "frozen": {}, "state": {}}
    for name, array in arrays.items():
        *folders, leaf = name.split("/")
        place = groups
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = array
    return Variables(**groups)


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
