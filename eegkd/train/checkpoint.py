"""Checkpoints: one atomic folder a step, verified before it is read.

    <folder>/00000120/state/      the pytree, by orbax
    <folder>/00000120/meta.json   the caller's metadata, the tree's shapes, file hashes

A step folder is written under a temporary name and renamed, so a killed run leaves the
last one whole. The teacher is never inside a student's checkpoint.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from eegkd.errors import InputError

# orbax 0.12 renamed both; 0.11.36, which the ONNX exporter wants, has the old names.
_save_pytree = ocp.save if hasattr(ocp, "save") else ocp.save_pytree
_load_pytree = ocp.load if hasattr(ocp, "load") else ocp.load_pytree

Tree = TypeVar("Tree")
KEPT = 2
_TEMPORARY = ".writing-"
_SPARE_BYTES = 1 << 20
_logger = logging.getLogger(__name__)


def save(folder: str | Path, step: int, tree: Any, meta: Mapping[str, Any]) -> Path:
    """Writes one checkpoint and removes all but the newest two.

    Args:
        folder: Of all the run's checkpoints.
        step: Updates done; names the checkpoint.
        tree: A pytree of arrays, typed random keys included.
        meta: Anything that JSON holds.

    Raises:
        InputError: If the folder cannot be written to or its disk is full; earlier
            checkpoints stay as they are.
    """
    folder = Path(folder).absolute()
    final = folder / f"{step:08d}"
    temporary = folder / f"{_TEMPORARY}{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_temporary(folder)
        # Orbax waits minutes for a folder that it cannot make, so this one is ours.
        temporary.mkdir()
        _check_space(folder, tree)
        _save_pytree(str(temporary / "state"), _bare(tree))
        record = {
            "meta": dict(meta),
            "leaves": _describe(tree),
            "files": _hash_files(temporary / "state"),
        }
        _write_json(temporary / "meta.json", record)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    except (OSError, ValueError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"Cannot write a checkpoint to {folder}: {_reason(error)}. Make room or "
            "choose another --out; earlier checkpoints are whole."
        ) from error
    for old in _steps(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def restore(folder: str | Path, template: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """Reads the newest checkpoint that is whole.

    Args:
        folder: Of all the run's checkpoints.
        template: A tree of the same structure, shapes and placement as the result.

    Returns:
        The tree and the metadata; None if there is no checkpoint.

    Raises:
        InputError: If the checkpoint is of another model, or none is whole.
    """
    folder = Path(folder).absolute()
    steps = _steps(folder)
    for path in reversed(steps):
        try:
            record = json.loads((path / "meta.json").read_text())
            files = _hash_files(path / "state")
        except (OSError, ValueError) as error:
            _logger.warning("Checkpoint %s is not readable (%s): skipped.", path, error)
            continue
        if files != record["files"]:
            _logger.warning("Checkpoint %s has damaged files: skipped.", path)
            continue
        _compare(path, record["leaves"], _describe(template))
        bare = _load_pytree(str(path / "state"), _bare(template))
        return jax.tree.map(_dress, template, bare), record["meta"]
    if steps:
        raise InputError(
            f"No checkpoint in {folder} is whole ({len(steps)} damaged): delete the "
            "folder to start anew."
        )
    return None


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _bare(tree: Any) -> Any:
    """Replaces typed random keys, which orbax 0.11.36 cannot read, by their bits."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _dress(like: Any, x: Any) -> Any:
    """Makes bits a key again where `like` is one."""
    if not _is_key(like):
        return x
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like))


def _steps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def _remove_temporary(folder: Path) -> None:
    for left in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left)


def _check_space(folder: Path, tree: Any) -> None:
    need = sum(x.nbytes for x in jax.tree.leaves(tree) if hasattr(x, "nbytes"))
    free = shutil.disk_usage(folder).free
    if free < need + _SPARE_BYTES:
        raise InputError(
            f"Cannot write a checkpoint to {folder}: it takes {need / 1e6:.1f} MB and "
            f"{free / 1e6:.1f} MB are free. Make room or choose another --out; earlier "
            "checkpoints are whole."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Orbax wraps the system's message in a long trace of its own.
    full = "No space left on device"
    return full if full in str(error) else str(error)[:200]


def _describe(tree: Any) -> dict[str, str]:
    """Lists every leaf's path with its dtype and shape."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): f"{x.dtype}{list(np.shape(x))}"
        for path, x in leaves
    }


def _compare(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    for name in [*wanted, *found]:
        have, want = found.get(name, "absent"), wanted.get(name, "absent")
        if have != want:
            raise InputError(
                f"Checkpoint {path} is of another model: {name} is {have} there and "
                f"{want} here. Use the settings it was made with, or another --out."
            )


def _hash_files(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            hashes[path.relative_to(folder).as_posix()] = digest
    return hashes


def _write_json(path: Path, record: Any) -> None:
    with path.open("w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
