"""Tensors of small CBraMod and LaBraM checkpoints, by their authors' names."""

import numpy as np

LAYERS = 2


def random_tensors(shapes):
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()}


def with_biases(weights):
    return weights | {
        name.removesuffix("weight") + "bias": shape[:1]
        for name, shape in weights.items()
        if name.endswith("weight") and "qkv" not in name
    }


def cbramod_tensors(f=2, ffn=6, layers=LAYERS):
    d, weights = 8 * f, {}
    for i, (inner, taps) in enumerate(((1, 49), (f, 3), (f, 3))):
        weights[f"patch_embedding.proj_in.{3 * i}.weight"] = (f, inner, 1, taps)
        weights[f"patch_embedding.proj_in.{3 * i + 1}.weight"] = (f,)
    weights["patch_embedding.spectral_proj.0.weight"] = (d, 101)
    weights["patch_embedding.positional_encoding.0.weight"] = (d, 1, 19, 7)
    weights["proj_out.0.weight"] = (200, d)
    plain = {"patch_embedding.mask_encoding": (200,)}
    for i in range(layers):
        layer = f"encoder.layers.{i}."
        for axis in "st":
            attention = f"{layer}self_attn_{axis}."
            plain[f"{attention}in_proj_weight"] = (3 * d // 2, d // 2)
            plain[f"{attention}in_proj_bias"] = (3 * d // 2,)
            weights[f"{attention}out_proj.weight"] = (d // 2, d // 2)
        weights[f"{layer}linear1.weight"] = (ffn, d)
        weights[f"{layer}linear2.weight"] = (d, ffn)
        weights[f"{layer}norm1.weight"] = weights[f"{layer}norm2.weight"] = (d,)
    return random_tensors(with_biases(weights) | plain)


def labram_tensors(f=4, ffn=6, norm="fc_norm", layers=LAYERS):
    """By the authors' names."""
    d, weights = 25 * f, {f"{norm}.weight": (25 * f,)}
    plain = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, 129, d),
        "time_embed": (1, 5, d),
    }
    for i, (inner, taps) in enumerate(((1, 15), (f, 3), (f, 3))):
        weights[f"patch_embed.conv{i + 1}.weight"] = (f, inner, 1, taps)
        weights[f"patch_embed.norm{i + 1}.weight"] = (f,)
    for i in range(layers):
        block = f"blocks.{i}."
        weights[f"{block}attn.qkv.weight"] = (3 * d, d)
        weights[f"{block}attn.proj.weight"] = (d, d)
        for name in ("attn.q_norm", "attn.k_norm"):
            weights[f"{block}{name}.weight"] = (20,)
        for name in ("norm1", "norm2"):
            weights[f"{block}{name}.weight"] = (d,)
        weights[f"{block}mlp.fc1.weight"] = (ffn, d)
        weights[f"{block}mlp.fc2.weight"] = (d, ffn)
        plain[f"{block}gamma_1"] = plain[f"{block}gamma_2"] = (d,)
    return random_tensors(with_biases(weights) | plain)


def by_braindecode(tensors):
    names = {
        "pos_embed": "position_embedding",
        "time_embed": "temporal_embedding",
        "patch_embed.": "patch_embed.temporal_conv.",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
    }
    renamed = {}
    for name, array in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = array
    return renamed
