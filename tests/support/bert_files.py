"""Folders of a small BERT, plain or as a package ships it."""

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import BertWordPieceTokenizer

CONFIG = {
    "model_type": "bert",
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 10,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
}


def tensors(pooler=True):
    """Draws the weights of a BERT of two layers."""
    rng = np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (20, 8),
        "embeddings.position_embeddings.weight": (10, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "embeddings.LayerNorm.weight": (8,),
        "embeddings.LayerNorm.bias": (8,),
    }
    for i in range(2):
        layer = f"encoder.layer.{i}."
        for name, shape in {
            "attention.self.query": (8, 8),
            "attention.self.key": (8, 8),
            "attention.self.value": (8, 8),
            "attention.output.dense": (8, 8),
            "intermediate.dense": (12, 8),
            "output.dense": (8, 12),
        }.items():
            shapes[f"{layer}{name}.weight"] = shape
            shapes[f"{layer}{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}{name}.weight"] = shapes[f"{layer}{name}.bias"] = (8,)
    if pooler:
        shapes |= {"pooler.dense.weight": (8, 8), "pooler.dense.bias": (8,)}
    return {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}


def write(folder, weights, config=CONFIG):
    """Writes the two files of a BERT."""
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "waves", "wave", "##s", "sharp"),
    *("slow", "a", "Slow", "\u2028", "\x85", "of", "one", "side", ".", "##er", "runs"),
)
"""Twenty; some are what `str.splitlines` takes for the end of a line."""


def write_package(root, *, lowercase=True, pooling="mean"):
    """Writes `root/model` as packages of sentence-transformers' towers have it."""
    folder = root / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    write(folder, tensors(pooler=False))
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    tokenizer = BertWordPieceTokenizer(vocab=vocabulary, lowercase=lowercase)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"do_lower_case": lowercase, "model_max_length": 10}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    modes = {f"pooling_mode_{x}": pooling == x.split("_")[0] for x in _MODES}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder


_MODES = ("cls_token", "mean_tokens", "max_tokens")
