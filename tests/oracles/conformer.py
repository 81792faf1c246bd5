"""A Conformer block as it is written down: prompts are tokens like any other.

They are appended to the sequence, attend and are attended to, are taken out before the
depthwise convolution, and their outputs are thrown away at the end.
"""

import numpy as np


def layer_norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def feed_forward(x, p):
    hidden = dense(layer_norm(x, p["norm"]), p["up"])
    return dense(hidden * sigmoid(hidden), p["down"])


def attention(x, n, h, p):
    """`x [m, d]`: the first `n` tokens are of the signal and have positions."""
    m, d = x.shape
    e = d // h
    normed = layer_norm(x, p["norm"])
    q, k, v = (dense(normed, p[name]) for name in ("query", "key", "value"))
    rates = 10_000.0 ** (-np.arange(0, d, 2) / d)
    out = np.zeros((m, d))
    for head in range(h):
        part = slice(head * e, (head + 1) * e)
        for i in range(m):
            scores = np.zeros(m)
            for j in range(m):
                scores[j] = (q[i, part] + p["u"][head]) @ k[j, part]
                if i < n and j < n:
                    wave = np.concatenate(
                        [np.sin((i - j) * rates), np.cos((i - j) * rates)]
                    )
                    r = (wave @ p["position"]["kernel"])[part]
                    scores[j] += (q[i, part] + p["v"][head]) @ r
            weights = np.exp(scores / np.sqrt(e))
            out[i, part] = weights / weights.sum() @ v[:, part]
    return dense(out, p["out"])


def convolution(x, n, p):
    """Signal tokens only: `x [m, d]`, rows after the first `n` come out as zeros."""
    hidden = dense(layer_norm(x[:n], p["norm"]), p["pointwise_in"])
    value, gate = np.split(hidden, 2, axis=-1)
    hidden = value * sigmoid(gate)
    kernel = p["depthwise"]["kernel"]
    half = len(kernel) // 2
    mixed = np.zeros_like(hidden) + p["depthwise"]["bias"]
    for i in range(n):
        for tap in range(len(kernel)):
            if 0 <= i + tap - half < n:
                mixed[i] += kernel[tap] * hidden[i + tap - half]
    centred = mixed - mixed.mean()
    mixed = centred / np.sqrt((centred**2).mean() + 1e-5)
    mixed = mixed * p["inner_norm"]["scale"] + p["inner_norm"]["bias"]
    out = np.zeros_like(x)
    out[:n] = dense(mixed * sigmoid(mixed), p["pointwise_out"])
    return out


def block(x, p, *, num_heads):
    """Maps the signal tokens `[n, d]` of one example."""
    n = len(x)
    x = np.concatenate([x, p["prompts"]])
    x = x + 0.5 * feed_forward(x, p["ffn_in"])
    x = x + attention(x, n, num_heads, p["attention"])
    x = x + convolution(x, n, p["conv"])
    x = x + 0.5 * feed_forward(x, p["ffn_out"])
    return layer_norm(x, p["norm"])[:n]
