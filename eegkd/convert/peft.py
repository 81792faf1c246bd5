"""LoRA adapters in PEFT's format: `adapter_config.json` and a file of tensors."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eegkd.convert.hf_config import Section
from eegkd.convert.hf_folder import LazyArray, locate, read_headers
from eegkd.convert.hf_save import Outgoing, write_json, write_safetensors
from eegkd.convert.tables import TRANSPOSED, Family, Path_, Weight
from eegkd.errors import InputError
from eegkd.host.json_file import read_json

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_STEM, _HEAD = "base_model.model.", "lm_head"
# Each adapter has two matrices: ours, theirs.
_MATRICES = {"lora_down": "lora_A", "lora_up": "lora_B"}
# Options that do not change what adapters compute when they are used. Every other one
# has to be off: an option that is not known here may change the result.
_HARMLESS = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
)
_OFF = (None, False, "none", [], {})
# Ways to draw adapters that do not change the base weights; adapters of the others
# belong to a base that was changed when they were drawn.
_DRAWS = (True, False, "gaussian", "eva", "orthogonal")


def load_peft(
    folder: str | Path, family: Family, model: Mapping[str, Any]
) -> tuple[dict[str, Any], list[LazyArray]]:
    """Finds the adapters of a folder that PEFT wrote.

    Args:
        folder: Folder of `adapter_config.json` and `adapter_model.safetensors`.
        family: Family of the model that they belong to.
        model: Fields of the model's config.

    Returns:
        Keyword arguments of `models.LoraConfig`, and the adapters by path, which are
        not read yet.

    Raises:
        InputError: If a file is missing or broken; if an option asks for more than
            `y + (alpha / r) x A B` on full stacks of linear layers; if names or shapes
            differ from the configuration.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    rank = config.size("r")
    dropout = config.get("lora_dropout", 0.0)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        config.problems.append(f"lora_dropout has to be in [0, 1); got {dropout!r}")
    alpha = config.number("lora_alpha", 8.0)
    chosen = _choose(config, _linears(family, model), family)
    if config.problems:
        raise InputError(
            f"{folder / CONFIG}: {'; '.join(config.problems)}. If the file was edited, "
            "take it anew; if not, merge these adapters into their model with PEFT "
            "(merge_and_unload), and load that."
        )

    def rename(name: str) -> str:
        return family.rename(name.removeprefix(_STEM))

    path = folder / TENSORS
    if not path.is_file():
        raise InputError(f"{path}: no such file; save the adapters as safetensors.")
    headers = read_headers(path)
    others = [name for name in headers.tensors if ".lora_" not in name]
    if others:
        # PEFT adds embeddings and head by itself where these have adapters.
        raise InputError(
            f"{path}: holds weights of the model itself, {', '.join(others)}: save the "
            "adapters with save_embedding_layers=False if these have not changed; "
            "otherwise merge them into their model with PEFT, and load that."
        )
    table = [row for linear in chosen for row in _adapter_rows(linear, rank)]
    arrays = locate(headers, table, rename=rename)
    targets = tuple("/".join(row.path[:-1]) for row in chosen)
    fields = {"rank": rank, "alpha": alpha, "dropout": dropout, "targets": targets}
    return fields, arrays


def _read_config(path: Path) -> Section:
    if not path.is_file():
        raise InputError(f"{path}: no readable file; take PEFT's whole folder.")
    values = read_json(path, dict, cure="Save it again.", strict=False)
    config = Section(values, "", [])
    config.one_of("peft_type", ("LORA",))
    config.one_of("init_lora_weights", _DRAWS, True)
    config.problems.extend(
        f"{name} is {value!r}, which is not supported"
        for name, value in values.items()
        if name not in _HARMLESS and value not in _OFF
    )
    return config


def _linears(family: Family, fields: Mapping[str, Any]) -> list[Weight]:
    """Lists the kernels of a model's linear layers."""
    return [
        row
        for row in family.table(fields)
        if row.path[-1] == "kernel" and row.turn is TRANSPOSED
    ]


def _modules(row: Weight, family: Family) -> list[str]:
    """Returns the names of a row's linear layers in transformers' model."""
    return [family.in_memory(name).removesuffix(".weight") for name in row.names]


def _choose(config: Section, linears: Iterable[Weight], family: Family) -> list[Weight]:
    """Lists the linear layers with adapters, by PEFT's rules."""
    wanted, chosen = config.get("target_modules"), []
    if not isinstance(wanted, str | list) or not wanted:
        config.problems.append(f"target_modules is {wanted!r}, which names no layers")
        return []
    for row in linears:
        modules = _modules(row, family)
        hits = [module for module in modules if _matches(wanted, module)]
        if hits:
            chosen.append(row)
        if 0 < len(hits) < len(modules):
            config.problems.append(
                f"target_modules names {len(hits)} of {len(modules)} layers of "
                f"{'/'.join(row.path[:-1])}: all or none can have adapters"
            )
    if not chosen:
        config.problems.append(
            f"target_modules {wanted!r} names no linear layer of this model: is it the "
            f"one they were made for ({config.get('base_model_name_or_path')})?"
        )
    return chosen


def _matches(wanted: str | list[str], module: str) -> bool:
    if wanted == "all-linear":
        return module.rpartition(".")[2] != _HEAD
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def _adapter_rows(linear: Weight, rank: int) -> list[Weight]:
    (out, inner), stem = linear.shape, linear.name.removesuffix(".weight")
    shapes = {"lora_down": (rank, inner), "lora_up": (out, rank)}
    return [
        linear._replace(
            path=(*linear.path[:-1], ours),
            name=f"{stem}.{theirs}.weight",
            shape=shapes[ours],
        )
        for ours, theirs in _MATRICES.items()
    ]


def adapter_table(
    family: Family, fields: Mapping[str, Any], linears: Iterable[Path_], rank: int
) -> list[Weight]:
    """Lists the tensors of adapters, by the names that PEFT gives them.

    Args:
        family: Family of the model that they belong to.
        fields: Fields of the model's config.
        linears: Paths of the linear layers that have adapters.
        rank: Inner width.

    Raises:
        ValueError: If a path is that of no linear layer.
    """
    return [
        row._replace(name=f"{_STEM}{family.in_memory(row.name)}")
        for linear in _chosen(family, fields, linears)
        for row in _adapter_rows(linear, rank)
    ]


def _chosen(
    family: Family, fields: Mapping[str, Any], linears: Iterable[Path_]
) -> list[Weight]:
    rows, paths = {row.path[:-1]: row for row in _linears(family, fields)}, [*linears]
    unknown = ["/".join(path) for path in paths if path not in rows]
    if unknown:
        raise ValueError(f"No linear layers of the model: {', '.join(unknown)}.")
    return [rows[path] for path in paths]


def write_peft(
    folder: str | Path,
    tensors: Sequence[Outgoing],
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: list[str],
    base: str | None,
) -> None:
    """Writes adapters as PEFT reads them.

    Args:
        folder: Folder to write; made if needed.
        tensors: Tensors of the rows of `adapter_table`.
        rank: Inner width.
        alpha: Scale: the adapters' output is multiplied by alpha / rank.
        dropout: Rate on the adapters' input in training.
        targets: Target names from `name_targets`.
        base: Name or folder of the model that they belong to.

    Raises:
        InputError: If the folder cannot be written.
    """
    write_safetensors(Path(folder) / TENSORS, tensors)
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(Path(folder) / CONFIG, config)


def name_targets(
    family: Family, fields: Mapping[str, Any], linears: Iterable[Path_]
) -> list[str]:
    """Returns layers' names: their last words, or in full where those are ambiguous."""
    rows = _chosen(family, fields, linears)
    modules = [module for row in rows for module in _modules(row, family)]
    short = sorted({module.rpartition(".")[2] for module in modules})
    hit = [
        module
        for row in _linears(family, fields)
        for module in _modules(row, family)
        if _matches(short, module)
    ]
    return short if sorted(hit) == sorted(modules) else sorted(modules)
