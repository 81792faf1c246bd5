"""Published weights of a stage: read once, bound to a run by their hashes."""

import functools
from pathlib import Path
from typing import Any

import jax

from eegkd.errors import InputError
from eegkd.host.sealed import hash_file
from eegkd.systems import LOADED, System, Weights
from eegkd.systems.batches import shapes_of
from eegkd.typing import PyTree, Variables


def loaded_weights(name: str, place: str, tree: PyTree) -> Weights:
    """Makes `Weights` of arrays that have been read already."""
    path = Path(place).absolute()
    files = (path,) if path.is_file() else tuple(sorted(path.glob("*.safetensors")))
    return Weights(name, files, lambda: shapes_of(tree), lambda: tree)


@functools.cache
def _hash_once(path: Path, size: int, changed_ns: int) -> str:
    return hash_file(path)


def weight_hashes(weights: Weights) -> dict[str, str]:
    """Returns file name -> SHA-256 of published weights.

    Raises:
        InputError: If a file is missing.
    """
    found = {}
    for path in weights.files:
        if not path.is_file():
            raise InputError(
                f"{path} is gone: a stage starts from the weights of {weights.name} "
                "there. Put it back."
            )
        stat = path.stat()
        found[path.name] = _hash_once(path, stat.st_size, stat.st_mtime_ns)
    return found


def system_weights(system: System) -> dict[str, dict[str, Any]]:
    """Returns stage -> model and file hashes, for stages that load weights."""
    return {
        stage.name: {"model": stage.load.name, "files": weight_hashes(stage.load)}
        for stage in system.stages
        if stage.load is not None
    }


def without_loaded(variables: Variables) -> Variables:
    """Returns the variables without the loaded weights that stay untrained."""
    frozen = {k: v for k, v in variables.frozen.items() if k != LOADED}
    return variables._replace(frozen=frozen)


def with_loaded(variables: Variables, tree: PyTree, wanted: Variables) -> Variables:
    """Puts loaded weights back: those paths of `tree` that `wanted` has.

    Args:
        variables: Variables saved without them.
        tree: Result of `Weights.read`.
        wanted: Shapes of all variables.
    """
    if LOADED not in wanted.frozen:
        return variables
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    known = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    part = jax.tree_util.tree_map_with_path(
        lambda path, _: known[jax.tree_util.keystr(path)], wanted.frozen[LOADED]
    )
    return variables._replace(frozen=variables.frozen | {LOADED: part})
