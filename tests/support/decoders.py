"""A tiny decoder with random weights, for several tests."""

import jax
import numpy as np

from eegkd.models.decoder import Decoder, DecoderConfig

LLAMA = DecoderConfig(
    vocab_size=40,
    dim=16,
    depth=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    ffn_dim=20,
    layers_out=(0, -1),
)


def random_params(cfg, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.zeros((1, 2), np.int32)
    shapes = jax.eval_shape(Decoder(cfg).init, jax.random.key(0), ids)["params"]
    return jax.tree.map(
        lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32), shapes
    )


def padded(texts, side, fill=7):
    """Ids and mask of texts of several lengths, with tokens in the padding too."""
    length = max(map(len, texts))
    ids = np.full((len(texts), length), fill, np.int32)
    mask = np.zeros(ids.shape, bool)
    for i, text in enumerate(texts):
        place = slice(len(text)) if side == "right" else slice(length - len(text), None)
        ids[i, place], mask[i, place] = text, True
    return ids, mask
