"""Outputs that another framework computed: a folder of arrays, matched by window_id.

window_id.npy        i64[n], every id once, in any order
teacher.logits.npy   f[n, k]: one file per tensor, named stage.tensor
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eegkd.cache.files import WINDOWS
from eegkd.errors import InputError
from eegkd.host.arrays import open_npy
from eegkd.host.sealed import hash_file


class ExternalOutputs(NamedTuple):
    """A folder of arrays, opened.

    Attributes:
        folder: Path of the folder.
        order: `i64[m]`: the row of each wanted window.
        arrays: Tensor name -> memory map.
    """

    folder: Path
    order: np.ndarray
    arrays: Mapping[str, np.ndarray]

    def produce(self, places: np.ndarray, views: np.ndarray) -> dict[str, np.ndarray]:
        """Reads the rows of some windows; there is one view of each."""
        del views
        rows = self.order[places]
        return {name: np.asarray(array[rows]) for name, array in self.arrays.items()}

    def hashes(self) -> dict[str, str]:
        """Computes file name -> hash of every file that is read."""
        names = [WINDOWS, *(f"{name}.npy" for name in self.arrays)]
        return {name: hash_file(self.folder / name) for name in names}


def given_names(folder: str | Path, wanted: Sequence[str]) -> list[str]:
    """Lists the wanted tensors that a folder holds.

    Raises:
        InputError: If it is no folder, or has none of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--cache.given {folder} is no folder.")
    found = [name for name in wanted if (folder / f"{name}.npy").is_file()]
    if not found:
        files = ", ".join(f"{name}.npy" for name in wanted)
        raise InputError(f"--cache.given {folder} has none of {files}.")
    return found


def open_external(
    folder: str | Path,
    specs: Mapping[str, tuple[tuple[int, ...], str]],
    window_ids: np.ndarray,
) -> ExternalOutputs:
    """Opens the arrays of a folder and matches their rows to windows.

    Args:
        folder: Folder of `window_id.npy` and one `<stage>.<tensor>.npy` per tensor.
        specs: Tensor name -> shape of one window, and dtype.
        window_ids: Windows that must be there.

    Raises:
        InputError: If a file is missing or of another shape or kind, or an id is
            missing or there twice.
    """
    folder = Path(folder).absolute()
    ids = _load(folder / WINDOWS)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        found = f"{ids.dtype}{list(ids.shape)}"
        raise InputError(f"{folder / WINDOWS} is {found}, not integers [n].")
    ids = np.asarray(ids, np.int64)
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        raise InputError(
            f"{folder / WINDOWS}: window_id {ids[order][twice[0]]} is there twice."
        )
    places = np.searchsorted(ids[order], window_ids)
    lost = np.append(ids[order], -1)[np.minimum(places, len(ids))] != window_ids
    lost |= places == len(ids)
    if lost.any():
        raise InputError(
            f"{folder / WINDOWS} lacks {lost.sum()} of {len(window_ids)} windows, "
            f"window_id {np.asarray(window_ids)[np.argmax(lost)]} the first. Export "
            "the teacher's outputs for every window of the store."
        )
    arrays = {}
    for name, (shape, dtype) in specs.items():
        file = folder / f"{name}.npy"
        array = _load(file)
        if array.shape != (len(ids), *shape):
            want = [len(ids), *shape]
            raise InputError(f"{file} has shape {list(array.shape)}, not {want}.")
        # Bits of bfloat16 would pass for whole numbers.
        if (array.dtype.kind == "f") != ("float" in dtype) or array.dtype.kind == "O":
            raise InputError(f"{file} holds {array.dtype}; write it as {dtype}.")
        arrays[name] = array
    return ExternalOutputs(folder, order[places], arrays)


def _load(file: Path) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file} is missing from the folder of --cache.given.")
    return open_npy(file, cure="Write it with numpy.save.")
