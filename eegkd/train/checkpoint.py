"""Checkpoints: one atomic folder per step, verified before it is read.

    <folder>/00000120/state/      the pytree, by orbax
    <folder>/00000120/meta.json   the caller's metadata, the tree's shapes, and hashes
                                  of every file and of this one

A step folder is written under a temporary name, put on the disk and renamed, so a
killed run, or a machine that lost power, has the last one whole. A damaged one is
recognised by its hashes, moved aside as damaged-<step> and never deleted here. The
teacher is never inside a student's checkpoint.

Orbax writes and reads the pytree; its `training.Checkpointer`, with a policy of what is
kept, does not manage the folder. It renames a step as soon as its own files are
written: our hashes, and the wait for the disk, would come after the name, and a kill
between both would leave a step that nobody can verify. Its policy would count a damaged
step among the newest two. It may be used on the main thread alone, and trainings run in
several.
"""

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from eegkd.errors import InputError, disk_error, reason_of
from eegkd.host.atomic import sync, sync_tree
from eegkd.host.sealed import (
    bad_files,
    first_difference,
    hash_files,
    parse_sealed,
    seal,
)
from eegkd.train.distributed import first_only, of_first
from eegkd.train.sharding import is_key

# orbax 0.12 renamed both; 0.11.36, which the ONNX exporter wants, has the old names.
_save_pytree = ocp.save if hasattr(ocp, "save") else ocp.save_pytree
_load_pytree = ocp.load if hasattr(ocp, "load") else ocp.load_pytree
# Each device that holds a copy of an array would write a part of it, which pays for
# large arrays alone; and a template says how arrays are placed, so no file has to. The
# defaults take 1.8 s, and these 0.7 s, for 320 arrays of 1 kB on four CPU devices.
_SAVING = {
    "min_slice_bytes_for_replica_parallel": 1 << 20,
    "enable_write_sharding_file": False,
}
# Orbax numbers its saves in one counter: two at once take each other's signals.
_ORBAX = threading.Lock()

Tree = TypeVar("Tree")
KEPT = 2
VERSION = 1
_META, _TEMPORARY, _DAMAGED = "meta.json", ".writing-", "damaged-"
_SPARE_BYTES = 1 << 20
_logger = logging.getLogger(__name__)


class _Meta(TypedDict):
    """Shape of a checkpoint's record."""

    version: int
    meta: dict[str, Any]
    leaves: dict[str, str]
    files: dict[str, str]


def save(folder: str | Path, step: int, tree: Any, meta: Mapping[str, Any]) -> Path:
    """Writes one checkpoint and removes all but the newest two.

    Args:
        folder: Folder of all the run's checkpoints.
        step: Updates done, which name the checkpoint.
        tree: A pytree of arrays, typed random keys included.
        meta: JSON values.

    Raises:
        InputError: If the folder cannot be written to or its disk is full; earlier
            checkpoints are kept.
        TypeError: If a leaf of the tree is no array.
    """
    folder = Path(folder).absolute()
    final = folder / f"{step:08d}"
    temporary = folder / f"{_TEMPORARY}{step:08d}"
    # Before orbax, which has begun to write when it refuses what is no array.
    leaves = _describe(tree)

    def begin() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_temporary(folder)
        # Orbax waits minutes for a folder that it cannot make, so this one is ours.
        temporary.mkdir()
        _check_space(folder, tree)

    def finish() -> None:
        record = {
            "version": VERSION,
            "meta": dict(meta),
            "leaves": leaves,
            "files": hash_files(temporary / "state"),
        }
        (temporary / _META).write_text(seal(record), encoding="utf-8")
        sync_tree(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(folder)
        for old in _steps(folder)[:-KEPT]:
            shutil.rmtree(old)

    try:
        first_only(begin)
        with _ORBAX, _quiet_orbax(), _saving_context():
            _save_pytree(str(temporary / "state"), _bare(tree))
        first_only(finish)
    except (OSError, ValueError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, InputError):
            raise
        if not isinstance(error, OSError) and not disk_error(error):
            raise  # No fault of the disk.
        raise InputError(
            f"Cannot write a checkpoint to {folder}: {reason_of(error)}. Make room or "
            "choose another --out; earlier checkpoints are whole."
        ) from error
    return final


def restore(folder: str | Path, template: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """Reads the newest checkpoint that is whole.

    Args:
        folder: Folder of all the run's checkpoints.
        template: A tree of the same structure, shapes and placement as the result.

    Returns:
        The tree and the metadata; None if there is no checkpoint.

    Raises:
        InputError: If the checkpoint is of another model or version, or none is whole.
    """
    folder = Path(folder).absolute()
    damaged: list[Path] = []
    step = -1

    def choose() -> None:
        nonlocal step
        step = _newest_whole(folder, damaged)

    first_only(choose)
    step = int(of_first({"step": step})["step"])
    if step < 0:
        return None
    path = folder / f"{step:08d}"
    record = parse_sealed(path / _META, shape=_Meta)
    _compare_version(path, record)
    _compare(path, record["leaves"], _describe(template))
    bare = _load(path, _bare(template))
    for bad in damaged:
        _set_aside(bad)
    return jax.tree.map(_dress, template, bare), record["meta"]


def _newest_whole(folder: Path, damaged: list[Path]) -> int:
    """Returns the step of the newest whole checkpoint, -1 if there is none at all.

    Damaged ones are added to `damaged`.
    """
    steps = _steps(folder)
    for path in reversed(steps):
        try:
            _verify(path)
        except (OSError, ValueError) as error:
            _logger.warning(
                "Checkpoint %s is damaged (%s): going back to the one before it.",
                path,
                reason_of(error),
            )
            damaged.append(path)
        else:
            return int(path.name)
    if steps:
        raise InputError(
            f"No checkpoint in {folder} is whole ({len(steps)} damaged): put one back, "
            "or delete the folder to start this training anew."
        )
    return -1


def _verify(path: Path) -> None:
    """Compares every file of a checkpoint with its record.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If one was altered; the message names it.
    """
    wanted = parse_sealed(path / _META, shape=_Meta)["files"]
    for name, what in bad_files(path / "state", wanted).items():
        raise ValueError(f"state/{name} {what}")
    for file in sorted((path / "state").rglob("*")):
        name = file.relative_to(path / "state").as_posix()
        if file.is_file() and name not in wanted:
            raise ValueError(f"state/{name} was added")


def _load(path: Path, template: Any) -> Any:
    try:
        with _ORBAX, _quiet_orbax():
            return _load_pytree(str(path / "state"), template)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"Checkpoint {path} is whole and cannot be read ({reason_of(error)}): use "
            "the version of orbax-checkpoint in the run's config.json."
        ) from error


def _set_aside(path: Path) -> None:
    """Renames a damaged checkpoint, so that it counts as none of the newest two."""
    aside = path.with_name(_DAMAGED + path.name)
    # Where this cannot be done, nothing can be saved either, which is an error then.
    with contextlib.suppress(OSError):
        if aside.exists():
            shutil.rmtree(aside)
        path.rename(aside)


def _bare(tree: Any) -> Any:
    """Converts every leaf to a form that orbax can write.

    Typed random keys become bits, since orbax 0.11.36 cannot read keys; arrays that
    several processes hold a copy of (pmap's) and NumPy's scalars, which it refuses,
    become host arrays.
    """

    def bare(x: Any) -> Any:
        if isinstance(x, np.generic):
            return np.asarray(x)
        x = jax.random.key_data(x) if is_key(x) else x
        own = jax.process_count() > 1 and x.is_fully_addressable
        return np.asarray(x) if own else x

    return jax.tree.map(bare, tree)


def _dress(like: Any, x: Any) -> Any:
    """Undoes `_bare`, by the leaf that it came from."""
    if isinstance(x, np.ndarray) and isinstance(like, jax.Array):
        x = jax.device_put(x, like.sharding)
    if isinstance(like, np.generic):
        return np.asarray(x)[()]
    if not is_key(like):
        return x
    return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))


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


def _describe(tree: Any) -> dict[str, str]:
    """Lists every leaf's path, dtype and shape, and refuses what is no array."""
    described = {}
    for keys, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(keys)
        if not hasattr(x, "dtype"):
            raise TypeError(
                f"{name} is of type {type(x).__name__}: a checkpoint holds arrays only."
            )
        described[name] = f"{x.dtype}{list(np.shape(x))}"
    return described


def _compare_version(path: Path, record: Mapping[str, Any]) -> None:
    if record["version"] != VERSION:
        raise InputError(
            f"Checkpoint {path} is of format {record['version']}, this version of "
            f"eegkd reads {VERSION}: go on with the version that wrote it."
        )


def _compare(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    differing = first_difference(found, wanted)
    if differing is not None:
        name, have, want = differing
        raise InputError(
            f"Checkpoint {path} is of another model: {name} is {have or 'absent'} "
            f"there and {want or 'absent'} here. Use the settings it was made with, or "
            "another --out."
        )


def _saving_context() -> ocp.Context:
    """Returns orbax's options of saving, which are fixed once made before 0.12."""
    if not hasattr(ocp.Context, "array"):
        options = ocp.options.ArrayOptions
        return ocp.Context(array_options=options(saving=options.Saving(**_SAVING)))
    context = ocp.Context()
    for name, value in _SAVING.items():
        setattr(context.array.saving, name, value)
    return context


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Drops log traces of orbax's threads for errors that it also raises."""
    logger = logging.getLogger("absl")

    def refuse(record: logging.LogRecord) -> bool:
        del record
        return False

    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)
