"""BERT weights of Hugging Face folders, as (path, array) pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegkd.convert.hf_config import check_type, open_config, refuse_problems
from eegkd.convert.safetensors import (
    read_safetensors,
    renamed,
    unwrapped,
)
from eegkd.convert.tables import Pairs, Weight, linear, norm, place
from eegkd.errors import InputError

_SIZES = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "num_types": "type_vocab_size",
}
_TABLES = {
    "word": "word_embeddings",
    "position": "position_embeddings",
    "type": "token_type_embeddings",
}
_DENSE = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "norm": "output.LayerNorm"}
_HEADS = ("cls.", "classifier.", "qa_outputs.")
_BUFFER = "embeddings.position_ids"


def load_bert(folder: str | Path) -> tuple[dict[str, Any], Pairs]:
    """Reads a folder of `config.json` and safetensors files.

    Tensor names may begin with `bert.`, norms may be called gamma and beta, and heads
    of pre-training or fine-tuning tasks are left out.

    Returns:
        Keyword arguments of `models.BertConfig`, and the parameters of `models.Bert`
        by path, layers stacked.

    Raises:
        InputError: If a file is missing or broken, the model is no BERT, or names or
            shapes differ; one message lists every difference.
    """
    config = _read_sizes(folder)
    tensors = renamed(folder, read_safetensors(folder), _rename)
    left_out = (*_HEADS, _BUFFER)
    tensors = {name: a for name, a in tensors.items() if not name.startswith(left_out)}
    config["pooler"] = "pooler.dense.weight" in tensors
    depth, table = config["depth"], _table(config)
    return config, place(folder, tensors, table, depth=depth, model="config.json")


def _read_sizes(folder: str | Path) -> dict[str, Any]:
    section = open_config(folder)
    raw = section.values
    check_type(folder, raw.get("model_type", "bert"), ("bert",))
    missing = [name for name in _SIZES.values() if name not in raw]
    if missing:
        raise InputError(
            f"{Path(folder) / 'config.json'}: fields {', '.join(missing)} are missing: "
            "is this a BERT? Download the file again."
        )
    fixed = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, value in fixed.items():
        if raw.get(name, value) not in (value, None):
            raise InputError(
                f"{Path(folder) / 'config.json'}: {name} must be {value!r}; got "
                f"{raw[name]!r}, which is not supported: take other weights."
            )
    config: dict = {ours: section.size(theirs) for ours, theirs in _SIZES.items()}
    config["eps"] = section.number("layer_norm_eps", 1e-12)
    config["dropout"] = section.share("hidden_dropout_prob", 0.1)
    section.divides(
        config["num_heads"], config["dim"], "num_attention_heads and hidden_size"
    )
    refuse_problems(folder, section)
    return config


def _rename(name: str) -> str:
    name = unwrapped(name).removeprefix("bert.")
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    if name.endswith("LayerNorm.beta"):
        return name.removesuffix("beta") + "bias"
    return name


def _table(config: Mapping[str, Any]) -> list[Weight]:
    d, ffn, layer = config["dim"], config["ffn_dim"], "encoder.layer.{}."
    sizes = {
        "word": config["vocab_size"],
        "position": config["max_positions"],
        "type": config["num_types"],
    }
    table = [
        Weight(
            ("embeddings", ours, "embedding"),
            f"embeddings.{theirs}.weight",
            (sizes[ours], d),
        )
        for ours, theirs in _TABLES.items()
    ]
    table += norm(("embeddings", "norm"), "embeddings.LayerNorm", d)
    for ours, theirs in _DENSE.items():
        out, inner = {"up": (ffn, d), "down": (d, ffn)}.get(ours, (d, d))
        table += linear(("layers", ours), f"{layer}{theirs}", out, inner)
    for ours, theirs in _NORMS.items():
        table += norm(("layers", ours), f"{layer}{theirs}", d)
    if config["pooler"]:
        table += linear(("pooler",), "pooler.dense", d, d)
    return table
