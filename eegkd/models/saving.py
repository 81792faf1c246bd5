"""Models and adapters in files that transformers and PEFT read, and adapters back."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from eegkd.convert.hf_save import Outgoing, write_checkpoint
from eegkd.convert.peft import adapter_table, load_peft, name_targets, write_peft
from eegkd.convert.tables import Family, Weight
from eegkd.models.loading import Shardings, load_tree, take_layer
from eegkd.models.lora import LoraConfig
from eegkd.models.published import PUBLISHED
from eegkd.typing import PyTree

_SHARD_BYTES = 5_000_000_000


def save_pretrained(
    folder: str | Path,
    module: nn.Module,
    variables: PyTree,
    *,
    config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = _SHARD_BYTES,
) -> None:
    """Writes a model as a folder that transformers reads with `from_pretrained`.

    Tensors keep their type and leave the devices one at a time.

    Args:
        folder: Folder to write, made if needed; it may not hold weights.
        module: `Clip`, `ClipText`, `ClipVision`, `Decoder` or `Llava`.
        variables: Variables of the module.
        config: Other fields of `config.json`, such as the ids of special tokens, by
            `convert.read_config` of the folder that the model came from.
        max_shard_bytes: Most bytes of a file, unless a single tensor is larger.

    Raises:
        InputError: If the folder holds weights already, or cannot be written.
        ValueError: If there is no such model in transformers, or variables do not fit.
    """
    family, fields = _family(module)
    tensors = _outgoing(family.table(fields), variables["params"])
    written = _merge(config or {}, family.config(fields))
    written.pop("torch_dtype", None)  # The older name of dtype.
    # Scalars may be wider than the rest.
    written["dtype"] = next(tensor.dtype for tensor in tensors if tensor.shape)
    write_checkpoint(folder, written, tensors, max_shard_bytes=max_shard_bytes)


def load_adapters(
    folder: str | Path,
    module: nn.Module,
    *,
    dtype: Any = None,
    shardings: Shardings | None = None,
) -> tuple[LoraConfig, PyTree]:
    """Reads LoRA adapters that PEFT wrote.

    Args:
        folder: Folder of `adapter_config.json` and `adapter_model.safetensors`.
        module: Model that they belong to, as for `save_pretrained`.
        dtype: Type of the adapters; None is the file's, at least float32.
        shardings: Placement, as for `load_pretrained`.

    Returns:
        Their config, and adapters for `apply_adapted`.

    Raises:
        InputError: If a file is missing or broken, an option is not supported, or names
            or shapes differ.
        ValueError: If there is no such model in transformers.
    """
    config, arrays = load_peft(folder, *_family(module))
    return LoraConfig(**config), load_tree(arrays, dtype=dtype, shardings=shardings)


def save_adapters(
    folder: str | Path,
    module: nn.Module,
    adapters: PyTree,
    config: LoraConfig,
    *,
    base: str | None = None,
) -> None:
    """Writes LoRA adapters as PEFT reads them.

    Args:
        folder: Folder to write, made if needed; adapters there are replaced.
        module: Model that they belong to, as for `save_pretrained`.
        adapters: Adapters from `init_adapters`.
        config: Config that they were made with.
        base: Name or folder of the model, for PEFT's users.

    Raises:
        InputError: If the folder cannot be written.
        ValueError: If there is no such model in transformers, or adapters do not fit.
    """
    family, fields = _family(module)
    paths = list(dict.fromkeys(path[:-1] for path in flatten_dict(adapters)))
    table = adapter_table(family, fields, paths, config.rank)
    write_peft(
        folder,
        _outgoing(table, adapters),
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        targets=name_targets(family, fields, paths),
        base=base,
    )


def _family(module: nn.Module) -> tuple[Family, dict[str, Any]]:
    families = {
        kind: family
        for model in PUBLISHED.values()
        for kind, family in model.families.items()
    }
    family = families.get(type(module))
    if family is None:
        known = ", ".join(kind.__name__ for kind in families)
        raise ValueError(
            f"transformers has no {type(module).__name__} of ours; there is {known}."
        )
    return family, dataclasses.asdict(module.cfg)  # pyright: ignore[reportAttributeAccessIssue]


def _outgoing(table: Iterable[Weight], params: PyTree) -> list[Outgoing]:
    """Lists tensors to be written."""
    leaves: dict[Any, Any] = flatten_dict(params)
    rows = {row.path: row for row in table}
    wrong = [
        "/".join(path)
        for path in dict.fromkeys([*leaves, *rows])
        if path not in leaves
        or path not in rows
        or leaves[path].shape != rows[path].placed_shape
    ]
    if wrong:
        raise ValueError(f"Parameters that do not fit the config: {', '.join(wrong)}.")

    def value(row: Weight, i: int) -> np.ndarray:
        leaf = jnp.asarray(leaves[row.path])
        # Turned on the device: NumPy copies transposed arrays a hundred times slower.
        return np.asarray(row.turn.back(take_layer(leaf, i) if row.depth else leaf))

    return [
        Outgoing(name, row.shape, str(leaves[row.path].dtype), partial(value, row, i))
        for row in rows.values()
        for i, name in enumerate(row.names)
    ]


def _merge(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces fields, those of nested objects one by one."""
    return {**theirs} | {
        name: _merge(theirs.get(name) or {}, value)
        if isinstance(value, Mapping)
        else value
        for name, value in ours.items()
    }
