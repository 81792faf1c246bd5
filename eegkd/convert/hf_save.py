"""Writes folders of safetensors files as transformers reads them, tensor by tensor."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory

from eegkd.convert.hf_folder import FLOATS, INDEX, SINGLE
from eegkd.errors import InputError
from eegkd.host.atomic import open_atomic, write_atomic

_TYPES = {ours: theirs for theirs, ours in FLOATS.items()}


class Outgoing(NamedTuple):
    """A tensor to be written.

    Attributes:
        name: Name in the file.
        shape: Shape in the file.
        dtype: Type, as NumPy names it.
        value: Function that returns the array; called once.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    value: Callable[[], np.ndarray]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor in bytes."""
        width = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return int(np.prod(self.shape, dtype=np.int64)) * width


def write_checkpoint(
    folder: str | Path,
    config: Mapping[str, Any],
    tensors: Sequence[Outgoing],
    *,
    max_shard_bytes: int,
) -> None:
    """Writes `config.json` and `model.safetensors`, or shards and their index.

    Args:
        folder: Folder to write, made if needed.
        config: Contents of `config.json`.
        tensors: Tensors in the order of the files; one at a time is in memory.
        max_shard_bytes: Most bytes of a file, unless a single tensor is larger.

    Raises:
        InputError: If the folder holds weights already, or cannot be written.
        ValueError: If a type is no floating type of safetensors.
    """
    folder = Path(folder)
    there = sorted(path.name for path in folder.glob("*.safetensors*"))
    if there:
        raise InputError(
            f"{folder}: holds weights already ({', '.join(there)}); choose another "
            "folder, or remove them."
        )
    by_name = {tensor.name: tensor for tensor in tensors}
    split = split_state_dict_into_shards_factory(
        by_name,
        get_storage_size=lambda tensor: tensor.num_bytes,
        filename_pattern=SINGLE.replace(".", "{suffix}."),
        max_shard_size=max_shard_bytes,
    )
    for name, shard in split.filename_to_tensors.items():
        write_safetensors(folder / name, [by_name[tensor] for tensor in shard])
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index)
    write_json(folder / "config.json", config)


def write_safetensors(path: Path, tensors: Sequence[Outgoing]) -> None:
    """Writes one file, tensor by tensor, and renames it when it is whole.

    Raises:
        InputError: If it cannot be written.
        ValueError: If a type is no floating type of safetensors.
    """
    # transformers wants to know what wrote the file: layouts are PyTorch's.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        if tensor.dtype not in _TYPES:
            raise ValueError(f"Cannot write {tensor.name} as {tensor.dtype}.")
        stop = start + tensor.num_bytes
        header[tensor.name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open_atomic(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            value = np.ascontiguousarray(tensor.value())
            file.write(value.reshape(-1).view(np.uint8).data)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, sorted, so that equal content is an equal file.

    Raises:
        InputError: If it cannot be written.
    """
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
