"""CBraMod and LaBraM in NumPy, one example at a time, written as their papers say."""

import math

import numpy as np

erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def dense(x, p):
    return x @ np.float64(p["kernel"]) + p.get("bias", 0.0)


def layer_norm(x, p, eps):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * p["scale"] + p["bias"]


def group_norm(x, p, groups):
    """Normalises `[n, s, f]`: statistics of some filters over all patches and steps."""
    out = np.zeros_like(x)
    size = x.shape[-1] // groups
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        values = x[..., part]
        out[..., part] = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
    return out * p["scale"] + p["bias"]


def conv(x, p, stride, pad):
    """Convolves `[n, s, f]` over `s`."""
    kernel = np.float64(p["kernel"])
    x = np.pad(x, ((0, 0), (pad, pad), (0, 0)))
    steps = (x.shape[1] - len(kernel)) // stride + 1
    windows = (x[:, i * stride : i * stride + len(kernel)] for i in range(steps))
    rows = [np.einsum("nkf,kfg->ng", window, kernel) for window in windows]
    return np.stack(rows, axis=1) + p["bias"]


def stem(patches, p, kernels, groups):
    y = patches[..., None]
    for i, (stride, pad) in enumerate(kernels):
        y = gelu(
            group_norm(conv(y, p[f"conv_{i}"], stride, pad), p[f"norm_{i}"], groups)
        )
    return y


def attend(q, k, v, num_heads):
    """Mixes rows of `[n, d]`."""
    size = q.shape[-1] // num_heads
    out = np.zeros_like(q)
    for h in range(num_heads):
        part = slice(h * size, (h + 1) * size)
        weights = np.exp(q[:, part] @ k[:, part].T / np.sqrt(size))
        out[:, part] = weights / weights.sum(-1, keepdims=True) @ v[:, part]
    return out


def grid_conv(x, kernel):
    """Correlates `[c, n, d]` with `[i, j, d]`, zeros beyond the edges."""
    (c, n, _), (i, j, _) = x.shape, kernel.shape
    out = np.zeros_like(x)
    for row, column, k, s in np.ndindex(c, n, i, j):
        a, b = row + k - i // 2, column + s - j // 2
        if 0 <= a < c and 0 <= b < n:
            out[row, column] += kernel[k, s] * x[a, b]
    return out


def cbramod(x, p, *, grid, groups, num_heads, depth):
    """Maps one signal `[c, t]` to states `[depth + 1, c, n, d]`."""
    (c, n), e = grid, p["embedding"]
    patches = np.float64(x).reshape(c * n, 200)
    y = stem(patches, e, ((25, 24), (1, 1), (1, 1)), groups)
    y = y.transpose(0, 2, 1).reshape(c, n, -1)
    spectrum = np.abs(np.fft.rfft(patches, norm="forward")).reshape(c, n, -1)
    y = y + dense(spectrum, e["spectral"])
    y = y + grid_conv(y, np.float64(e["position"]["kernel"])) + e["position"]["bias"]
    states = [y]
    for i in range(depth):
        y = criss_cross(y, layer_of(p, i), num_heads)
        states.append(y)
    return np.stack(states)


def criss_cross(x, p, num_heads):
    normed, half = layer_norm(x, p["attention_norm"], 1e-5), x.shape[-1] // 2
    mixed = np.zeros_like(x)

    def one_axis(rows, p):
        q, k, v = np.split(dense(rows, p["qkv"]), 3, axis=-1)
        return dense(attend(q, k, v, num_heads // 2), p["out"])

    for patch in range(x.shape[1]):
        rows = normed[:, patch, :half]
        mixed[:, patch, :half] = one_axis(rows, p["spatial"])
    for channel in range(x.shape[0]):
        rows = normed[channel, :, half:]
        mixed[channel, :, half:] = one_axis(rows, p["temporal"])
    x = x + mixed
    y = layer_norm(x, p["ffn_norm"], 1e-5)
    return x + dense(gelu(dense(y, p["up"])), p["down"])


def labram(x, p, *, grid, rows, num_heads, depth):
    """Maps one signal `[c, t]` to states `[depth + 1, 1 + c * n, d]`."""
    c, n = grid
    patches = np.float64(x).reshape(c * n, 200)
    y = stem(patches, p["embedding"], ((8, 7), (1, 1), (1, 1)), 4).reshape(c * n, -1)
    for token in range(c * n):
        y[token] += p["position"][rows[token // n]] + p["time"][token % n]
    y = np.concatenate([p["cls_token"] + p["position"][:1], y])
    states = [y]
    for i in range(depth):
        y = labram_layer(y, layer_of(p, i), num_heads)
        states.append(y)
    return np.stack(states)


def labram_layer(x, p, num_heads):
    q, k, v = np.split(dense(layer_norm(x, p["attention_norm"], 1e-6), p["qkv"]), 3, -1)
    heads = (len(x), num_heads, -1)
    q, k = (
        layer_norm(part.reshape(heads), p[name], 1e-6).reshape(x.shape)
        for part, name in ((q, "query_norm"), (k, "key_norm"))
    )
    y = dense(attend(q, k, v, num_heads), p["attention_out"])
    x = x + y * p["attention_gain"]
    y = layer_norm(x, p["ffn_norm"], 1e-6)
    return x + dense(gelu(dense(y, p["up"])), p["down"]) * p["ffn_gain"]


def layer_of(p, i):
    def pick(tree):
        return {
            name: pick(value) if isinstance(value, dict) else value[i]
            for name, value in tree.items()
        }

    return pick(p["layers"])
