"""BERT weights of Hugging Face folders, as (path, array) pairs."""

from pathlib import Path

import numpy as np

from eegkd.convert.safetensors import check_names, read_config, read_safetensors
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
_NORMS = {
    "attention_norm": "attention.output.LayerNorm",
    "norm": "output.LayerNorm",
}
_HEADS = ("cls.", "classifier.", "qa_outputs.")

Path_ = tuple[str, ...]


def load_bert(folder: str | Path) -> tuple[dict, list[tuple[Path_, np.ndarray]]]:
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
    tensors = {_rename(name): a for name, a in read_safetensors(folder).items()}
    tensors = {name: a for name, a in tensors.items() if not name.startswith(_HEADS)}
    config["pooler"] = "pooler.dense.weight" in tensors
    check_names(folder, tensors, _shapes(config), ignored=("embeddings.position_ids",))
    return config, _pairs(tensors, config)


def _read_sizes(folder: str | Path) -> dict:
    raw = read_config(folder)
    missing = [name for name in _SIZES.values() if name not in raw]
    if missing:
        raise InputError(
            f"{Path(folder) / 'config.json'}: fields {', '.join(missing)} are missing; "
            "is this a BERT?"
        )
    fixed = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
    }
    for name, value in fixed.items():
        if raw.get(name, value) not in (value, None):
            raise InputError(
                f"{Path(folder) / 'config.json'}: {name} must be {value!r}; got "
                f"{raw[name]!r}."
            )
    config = {ours: raw[theirs] for ours, theirs in _SIZES.items()}
    config["eps"] = raw.get("layer_norm_eps", 1e-12)
    config["dropout"] = raw.get("hidden_dropout_prob", 0.1)
    return config


def _rename(name: str) -> str:
    name = name.removeprefix("bert.")
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    if name.endswith("LayerNorm.beta"):
        return name.removesuffix("beta") + "bias"
    return name


def _shapes(config: dict) -> dict[str, tuple[int, ...]]:
    d, ffn = config["dim"], config["ffn_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], d),
        "embeddings.position_embeddings.weight": (config["max_positions"], d),
        "embeddings.token_type_embeddings.weight": (config["num_types"], d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    for i in range(config["depth"]):
        for ours, theirs in _DENSE.items():
            out, inner = {"up": (ffn, d), "down": (d, ffn)}.get(ours, (d, d))
            shapes[f"encoder.layer.{i}.{theirs}.weight"] = (out, inner)
            shapes[f"encoder.layer.{i}.{theirs}.bias"] = (out,)
        for theirs in _NORMS.values():
            shapes[f"encoder.layer.{i}.{theirs}.weight"] = (d,)
            shapes[f"encoder.layer.{i}.{theirs}.bias"] = (d,)
    if config["pooler"]:
        shapes |= {"pooler.dense.weight": (d, d), "pooler.dense.bias": (d,)}
    return shapes


def _pairs(
    tensors: dict[str, np.ndarray], config: dict
) -> list[tuple[Path_, np.ndarray]]:
    def stack(name: str) -> np.ndarray:
        names = (f"encoder.layer.{i}.{name}" for i in range(config["depth"]))
        return np.stack([tensors[name] for name in names])

    pairs: list[tuple[Path_, np.ndarray]] = [
        (("embeddings", ours, "embedding"), tensors[f"embeddings.{theirs}.weight"])
        for ours, theirs in _TABLES.items()
    ]
    norm = "embeddings.LayerNorm"
    pairs += [
        (("embeddings", "norm", "scale"), tensors[f"{norm}.weight"]),
        (("embeddings", "norm", "bias"), tensors[f"{norm}.bias"]),
    ]
    for ours, theirs in _DENSE.items():
        kernel = stack(f"{theirs}.weight").swapaxes(1, 2)
        pairs.append((("layers", ours, "kernel"), kernel))
        pairs.append((("layers", ours, "bias"), stack(f"{theirs}.bias")))
    for ours, theirs in _NORMS.items():
        pairs.append((("layers", ours, "scale"), stack(f"{theirs}.weight")))
        pairs.append((("layers", ours, "bias"), stack(f"{theirs}.bias")))
    if config["pooler"]:
        kernel = tensors["pooler.dense.weight"].T
        pairs.append((("pooler", "kernel"), kernel))
        pairs.append((("pooler", "bias"), tensors["pooler.dense.bias"]))
    return pairs
