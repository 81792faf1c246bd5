"""Folders of LLaMA's weights in shards, their names and shapes written out plainly."""

import json

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "llama",
    "vocab_size": 24,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 12,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "tie_word_embeddings": False,
}


def llama_shapes(config):
    d, ffn = config["hidden_size"], config["intermediate_size"]
    of_key = d // config["num_attention_heads"] * config["num_key_value_heads"]
    vocab = config["vocab_size"]
    shapes = {"model.embed_tokens.weight": (vocab, d), "model.norm.weight": (d,)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (d, d),
            f"{layer}self_attn.k_proj.weight": (of_key, d),
            f"{layer}self_attn.v_proj.weight": (of_key, d),
            f"{layer}self_attn.o_proj.weight": (d, d),
            f"{layer}mlp.gate_proj.weight": (ffn, d),
            f"{layer}mlp.up_proj.weight": (ffn, d),
            f"{layer}mlp.down_proj.weight": (d, ffn),
            f"{layer}input_layernorm.weight": (d,),
            f"{layer}post_attention_layernorm.weight": (d,),
        }
    return shapes | {"lm_head.weight": (vocab, d)}


def llama_tensors(config=CONFIG, dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = llama_shapes(config)
    return {n: rng.normal(size=shape).astype(dtype) for n, shape in shapes.items()}


def write_shards(folder, tensors, config=CONFIG, shards=3):
    """Writes shards, their index and the config; neighbours lie in other shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    held = {name: files[i % shards] for i, name in enumerate(tensors)}
    for file in files:
        part = {name: tensors[name] for name in tensors if held[name] == file}
        save_file(part, folder / file)
    index = json.dumps({"metadata": {}, "weight_map": held})
    (folder / "model.safetensors.index.json").write_text(index)
    return folder
