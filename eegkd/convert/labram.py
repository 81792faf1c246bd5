"""LaBraM weights, from its authors' files and from braindecode's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eegkd.convert.files import read_optional_config, read_weights
from eegkd.convert.foundation import Fields, backbone_only, expect, signal_of
from eegkd.convert.tables import (
    Pairs,
    Turn,
    Weight,
    count_layers,
    linear,
    norm,
    place,
    size_of,
    time_conv,
)

_FIRST = Turn(lambda a: a[0], lambda a: a[None])
_PRETRAINING = ("mask_token", "lm_head.", "projection_head.", "logit_scale")


class _Names(NamedTuple):
    conv: str
    up: str
    down: str
    position: str
    time: str


_AUTHORS = _Names("patch_embed.", "mlp.fc1", "mlp.fc2", "pos_embed", "time_embed")
_BRAINDECODE = _Names(
    "patch_embed.temporal_conv.",
    "mlp.0",
    "mlp.2",
    "position_embedding",
    "temporal_embedding",
)


def load_labram(folder_or_file: str | Path) -> tuple[dict[str, Any], Pairs]:
    """Reads LaBraM's weights by its authors' names or braindecode's.

    Task heads and the heads of pre-training are left out. A pre-training file has the
    norm that pre-training ends with; fine-tuning as published takes a fresh one over
    the mean of tokens instead, and so does this.

    Returns:
        Keyword arguments of `models.LabramConfig`, and the parameters by path.

    Raises:
        InputError: If a file is missing or broken, names or shapes differ, or
            `config.json` asks for something else than the published architecture.
    """
    source = str(folder_or_file)
    config = read_optional_config(folder_or_file, Fields)
    fields = signal_of(source, config)
    for name, value in {"neural_tokenizer": True, "learned_patcher": False}.items():
        expect(source, name, config.get(name, value), value)
    raw = read_weights(folder_or_file)
    tensors = backbone_only(raw, ("module.", "student."), _PRETRAINING)
    names = _BRAINDECODE if _BRAINDECODE.time in tensors else _AUTHORS
    filters = size_of(tensors, f"{names.conv}conv1.weight", 0, 8)
    d = 25 * filters
    if any(name.startswith("student.") for name in raw):
        tensors = {n: a for n, a in tensors.items() if not n.startswith("norm.")}
        tensors["fc_norm.weight"] = np.ones(d, np.float32)
        tensors["fc_norm.bias"] = np.zeros(d, np.float32)
    by_class_token = "norm.weight" in tensors and "fc_norm.weight" not in tensors
    fields |= {
        "filters": filters,
        "depth": count_layers(tensors, "blocks.", 12),
        "num_heads": d // size_of(tensors, "blocks.0.attn.q_norm.weight", 0, 20),
        "ffn_dim": size_of(tensors, f"blocks.0.{names.up}.weight", 0, 4 * d),
        "max_patches": size_of(tensors, names.time, 1, 16),
        "pool": "cls" if by_class_token else "mean",
    }
    table = _table(fields, names)
    return fields, place(source, tensors, table, depth=fields["depth"], model="LaBraM")


def _table(fields: Mapping[str, Any], names: _Names) -> list[Weight]:
    filters, ffn = fields["filters"], fields["ffn_dim"]
    d, layer, block = 25 * filters, ("layers",), "blocks.{}."
    width = d // fields["num_heads"]
    table = [
        Weight(("cls_token",), "cls_token", (1, 1, d), _FIRST),
        Weight(("position",), names.position, (1, 129, d), _FIRST),
        Weight(("time",), names.time, (1, fields["max_patches"], d), _FIRST),
        *norm(("norm",), "norm" if fields["pool"] == "cls" else "fc_norm", d),
        *norm((*layer, "attention_norm"), f"{block}norm1", d),
        *linear((*layer, "qkv"), f"{block}attn.qkv", 3 * d, d, bias=False),
        *norm((*layer, "query_norm"), f"{block}attn.q_norm", width),
        *norm((*layer, "key_norm"), f"{block}attn.k_norm", width),
        *linear((*layer, "attention_out"), f"{block}attn.proj", d, d),
        *norm((*layer, "ffn_norm"), f"{block}norm2", d),
        *linear((*layer, "up"), f"{block}{names.up}", ffn, d),
        *linear((*layer, "down"), f"{block}{names.down}", d, ffn),
        Weight((*layer, "attention_gain"), f"{block}gamma_1", (d,)),
        Weight((*layer, "ffn_gain"), f"{block}gamma_2", (d,)),
    ]
    for i, (inner, taps) in enumerate(((1, 15), (filters, 3), (filters, 3))):
        path, name = ("embedding", f"conv_{i}"), f"{names.conv}conv{i + 1}"
        table += time_conv(path, name, filters, inner, taps)
        table += norm(("embedding", f"norm_{i}"), f"{names.conv}norm{i + 1}", filters)
    return table
