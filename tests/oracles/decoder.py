"""A decoder in plain NumPy, float64, one token and one head at a time."""

import numpy as np


def _norm(x, scale, eps):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def _rotate(x, position, theta):
    half = len(x) // 2
    angle = position * theta ** (-np.arange(half) / half)
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag])


def decode(params, cfg, ids):
    """Reads one text: every layer's output, the last norm's, and logits."""
    p = _float64(params)
    embedding = p["embed"]["embedding"]
    x = embedding[ids]
    blocks = []
    e, group = cfg.head_dim, cfg.num_heads // cfg.num_kv_heads
    for i in range(cfg.depth):
        layer = _slice(p["layers"], i)

        def dense(name, y, layer=layer):
            return y @ layer[name]["kernel"] + layer[name].get("bias", 0)

        y = _norm(x, layer["input_norm"]["scale"], cfg.eps)
        q, k, v = (
            dense(n, y).reshape(len(ids), -1, e) for n in ("query", "key", "value")
        )
        mixed = np.zeros((len(ids), cfg.num_heads, e))
        for t, h in np.ndindex(len(ids), cfg.num_heads):
            query = _rotate(q[t, h], t, cfg.rope_theta)
            keys = [_rotate(k[s, h // group], s, cfg.rope_theta) for s in range(t + 1)]
            score = np.array(keys) @ query / np.sqrt(e)
            weight = np.exp(score - score.max())
            mixed[t, h] = weight / weight.sum() @ v[: t + 1, h // group]
        x = x + dense("out", mixed.reshape(len(ids), -1))
        y = _norm(x, layer["post_norm"]["scale"], cfg.eps)
        gate = dense("gate", y)
        x = x + dense("down", gate / (1 + np.exp(-gate)) * dense("up", y))
        blocks.append(x)
    tokens = _norm(x, p["norm"]["scale"], cfg.eps)
    head = embedding.T if cfg.tied else p["lm_head"]["kernel"]
    return blocks, tokens, tokens @ head


def _float64(tree):
    if isinstance(tree, dict):
        return {name: _float64(value) for name, value in tree.items()}
    return np.asarray(tree, np.float64)


def _slice(tree, i):
    if isinstance(tree, dict):
        return {name: _slice(value, i) for name, value in tree.items()}
    return tree[i]
