"""Folders of safetensors files, as Hugging Face writes them, one tensor at a time.

Names, shapes and types are read from the files' headers and compared with a table
before any value is; values are read on demand, so that a whole checkpoint never lies in
memory.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
from safetensors import SafetensorError, safe_open

from eegkd.convert.safetensors import check_finite, name_differences, unwrapped
from eegkd.convert.tables import Path_, Weight, shapes_of
from eegkd.errors import InputError
from eegkd.host.json_file import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_TORCH = (".bin", ".pth", ".pt")
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types by their names in files, and in NumPy."""
# Buffers that older versions wrote with the weights; they follow from the config.
_BUFFERS = ("*.rotary_emb.inv_freq", "*position_ids")
_BLOCK = 1 << 22


class Stored(NamedTuple):
    """Place of a tensor in a file.

    Attributes:
        file: The safetensors file.
        name: Name in the file.
        shape: Shape in the file.
        dtype: Type in the file, as BF16.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


class _Index(TypedDict):
    """Shape of an index: the shard of each tensor."""

    weight_map: dict[str, str]


class Checkpoint(NamedTuple):
    """Contents of the headers of a folder's files.

    Attributes:
        source: The folder or file.
        tensors: Tensors by name.
        problems: Faults of the files.
        lost: Names that the index lists and no file has.
    """

    source: Path
    tensors: Mapping[str, Stored]
    problems: tuple[str, ...] = ()
    lost: frozenset[str] = frozenset()


class LazyArray(NamedTuple):
    """A parameter whose values are read on demand.

    Attributes:
        path: Path of the parameter.
        shape: Shape of the parameter, stacked layers first.
        dtype: Type in the file, as NumPy names it.
        parts: Readers of one layer each in Flax's layout, in the file's type; one
            reader of everything where `is_stack` is False.
        is_stack: True if there is one part per layer.
    """

    path: Path_
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[Callable[[], np.ndarray], ...]
    is_stack: bool


def read_headers(folder_or_file: str | Path) -> Checkpoint:
    """Reads names, shapes and types of all tensors of a checkpoint, and no values.

    Args:
        folder_or_file: A safetensors file; or a folder with
            `model.safetensors.index.json` and its shards, `model.safetensors`, or any
            safetensors files.

    Returns:
        The checkpoint; files that are missing, damaged or not as in the index are
        listed in it, not raised.

    Raises:
        InputError: If there is no such file at all, or the index is broken.
    """
    given = Path(folder_or_file)
    if given.is_file():
        return _join(given, {given: ()})
    index = given / INDEX
    if index.is_file():
        return _join(given, _read_index(index))
    single = given / SINGLE
    files = [single] if single.is_file() else sorted(given.glob("*.safetensors"))
    if files:
        return _join(given, dict.fromkeys(files, ()))
    torch = given.is_dir() and any(f.suffix in _TORCH for f in given.iterdir())
    raise InputError(
        f"{given}: no *.safetensors file"
        + (
            "; its PyTorch files have to be saved anew with save_pretrained."
            if torch
            else "; download model.safetensors, or all shards and their index, into it."
        )
    )


def _read_index(path: Path) -> dict[Path, list[str]]:
    """Returns the names that each shard should hold."""
    index: _Index = read_json(path, _Index, cure="Download it again.", strict=False)
    shards: dict[Path, list[str]] = {}
    for name, file in index["weight_map"].items():
        if Path(file).name != file:
            raise InputError(
                f"{path}: no index of shards ({file!r} names no file of the folder). "
                "Download it again."
            )
        shards.setdefault(path.parent / file, []).append(name)
    return shards


def _join(source: Path, shards: Mapping[Path, Sequence[str]]) -> Checkpoint:
    tensors: dict[str, Stored] = {}
    problems, lost = [], set()
    for file, wanted in shards.items():
        try:
            found = _read_header(file)
        except FileNotFoundError:
            problems.append(f"shard {file.name} is missing")
            lost |= set(wanted)
            continue
        except (SafetensorError, OSError) as error:
            problems.append(f"{file.name} is damaged or cut short ({error})")
            lost |= set(wanted)
            continue
        absent = [name for name in wanted if name not in found]
        problems += [f"{INDEX} names {n}, which {file.name} lacks" for n in absent]
        lost |= set(absent)
        tensors |= found
    return Checkpoint(source, tensors, tuple(problems), frozenset(lost))


def _read_header(file: Path) -> dict[str, Stored]:
    if file.exists() and not file.is_file():
        raise OSError("it is no regular file")  # Reading a pipe would never end.
    with safe_open(file, framework="np") as tensors:
        found = {}
        for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
            part = tensors.get_slice(name)
            found[name] = Stored(file, name, tuple(part.get_shape()), part.get_dtype())
    return found


def read_tensor(stored: Stored) -> np.ndarray:
    """Reads one tensor, in the file's type.

    Raises:
        InputError: If the file has changed or cannot be read.
    """
    try:
        with safe_open(stored.file, framework="np") as tensors:
            return tensors.get_tensor(stored.name)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{stored.file}: {error}; download it again.") from None


def locate(
    checkpoint: Checkpoint,
    table: Iterable[Weight],
    *,
    rename: Callable[[str], str] = str,
    ignored: Iterable[str] = (),
) -> list[LazyArray]:
    """Finds each parameter's tensors, by the headers alone.

    Args:
        checkpoint: Checkpoint from `read_headers`.
        table: Required tensors.
        rename: Maps a name in the files to one in the table.
        ignored: Patterns of the table's names that may be there and are not used.

    Raises:
        InputError: If a file is missing or damaged, or a tensor is missing, left over,
            there twice, of another shape or of no floating type; one message lists
            every difference.
    """
    table = list(table)
    found: dict[str, Stored] = {}
    problems = list(checkpoint.problems)
    ignored = (*_BUFFERS, *ignored)
    for stored in checkpoint.tensors.values():
        name = rename(unwrapped(stored.name))
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored):
            continue
        if name in found:
            problems.append(f"{found[name].name} and {stored.name} are one parameter")
        found[name] = stored
    num_stored = len(checkpoint.tensors) + len(checkpoint.lost)
    wanted = shapes_of(checkpoint.source, table, num_stored, model="config.json")
    lost = {rename(unwrapped(name)) for name in checkpoint.lost}
    problems += name_differences(
        found, {n: s for n, s in wanted.items() if n not in lost}, ignored=lost
    )
    problems += [
        f"{name} is stored as {found[name].dtype}, not as {', '.join(FLOATS)}"
        for name in wanted
        if name in found and found[name].dtype not in FLOATS
    ]
    if problems:
        raise InputError(
            f"{checkpoint.source}: the weights cannot be loaded with this "
            f"configuration: {'; '.join(problems)}. Download them again, or name the "
            "model that they are of."
        )

    def read(row: Weight, stored: Stored) -> np.ndarray:
        array = read_tensor(stored)
        check_finite(stored.file, stored.name, array)
        return row.turn.there(array)

    return [
        LazyArray(
            row.path,
            row.placed_shape,
            FLOATS[found[row.names[0]].dtype],
            tuple(partial(read, row, found[name]) for name in row.names),
            row.depth > 0,
        )
        for row in table
    ]


def are_equal(first: Stored, second: Stored) -> bool:
    """Compares two tensors' values, a few rows at a time."""
    if first.shape != second.shape:
        return False
    rows, *rest = first.shape
    step = max(1, _BLOCK // int(np.prod(rest)))
    with (
        safe_open(first.file, framework="np") as one,
        safe_open(second.file, framework="np") as other,
    ):
        a, b = one.get_slice(first.name), other.get_slice(second.name)
        return all(
            np.array_equal(a[i : min(i + step, rows)], b[i : min(i + step, rows)])
            for i in range(0, rows, step)
        )
