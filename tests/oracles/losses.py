"""Losses as they are written down, one pair or position at a time, in float64."""

import itertools

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True))


def each(fn):
    """Maps a loss of one example over the batch."""
    return lambda *arrays: np.array([fn(*one) for one in zip(*arrays, strict=True)])


def kd_kl(t=1.0):
    return each(lambda s, z: t**2 * kl(softmax(z / t), softmax(s / t)))


def reverse_kl(t=1.0):
    return each(lambda s, z: t**2 * kl(softmax(s / t), softmax(z / t)))


def jensen_shannon(t=1.0, beta=0.5):
    def one(s, z):
        q, p = softmax(s / t), softmax(z / t)
        m = beta * p + (1 - beta) * q
        return t**2 * (beta * kl(p, m) + (1 - beta) * kl(q, m))

    return each(one)


def decoupled_kd(label, alpha=1.0, beta=8.0, t=4.0):
    def one(s, z, y):
        if y < 0:
            return 0.0
        q, p = softmax(s / t), softmax(z / t)
        tckd = nckd = 0.0
        if len(p) > 1:
            tckd = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
            rest = [np.delete(x, y) for x in (p, q)]
            nckd = kl(rest[0] / rest[0].sum(), rest[1] / rest[1].sum())
        return t**2 * (alpha * tckd + beta * nckd)

    return lambda s, z: each(one)(s, z, label[: len(s)])


def over_labels(fn):
    """A two-class loss of yes against no, averaged over labels."""

    def one(s, z):
        yes_no = lambda x: np.stack([x, np.zeros_like(x)], -1)
        return fn(yes_no(s), yes_no(z)).mean()

    return each(one)


def potentials(h):
    n = len(h)
    distance = np.array([[np.linalg.norm(a - b) for b in h] for a in h])
    mean = distance.sum() / max(n * (n - 1), 1)
    distance = distance / mean if mean else distance
    cosine = np.array(
        [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in h] for a in h]
    )
    return distance, cosine


def smooth_l1(x):
    return np.where(np.abs(x) < 1, 0.5 * x**2, np.abs(x) - 0.5)


def relation(which, gap=np.square):
    return each(lambda s, t: gap(potentials(t)[which] - potentials(s)[which]).mean())


def angles(h):
    n = len(h)
    out = np.zeros((n, n, n))
    for i, j, k in itertools.product(range(n), repeat=3):
        if i not in (j, k):
            a, b = h[j] - h[i], h[k] - h[i]
            out[i, j, k] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return out


rkd_angle = each(lambda s, t: smooth_l1(angles(t) - angles(s)).mean())


def over_batch(fn):
    return lambda s, t: np.repeat(fn(s[None], t[None]), len(s))


def similarity_preserving(student, teacher):
    def rows(x):
        x = x.reshape(len(x), -1)
        gram = np.array([[a @ b for b in x] for a in x])
        return np.array([row / np.linalg.norm(row) for row in gram])

    return ((rows(teacher) - rows(student)) ** 2).mean(1)


def cka_distance(student, teacher):
    k, l = (
        (x - x.mean(0)) @ (x - x.mean(0)).T
        for x in (student.reshape(len(student), -1), teacher.reshape(len(teacher), -1))
    )
    sides = np.sqrt((k * k).sum() * (l * l).sum())
    return np.full(len(student), 1 - (k * l).sum() / sides if sides else 1.0)


def similarity_kl(towers, t=1.0):
    """`towers(student, teacher)` gives the six arguments of the loss."""

    def loss(student, teacher):
        s_eeg, s_text, s_scale, t_eeg, t_text, t_scale = towers(student, teacher)
        s = s_scale * s_eeg @ s_text.T / t
        z = t_scale * t_eeg @ t_text.T / t
        rows = each(lambda a, b: kl(softmax(b), softmax(a)))
        return 0.5 * t**2 * (rows(s, z) + rows(s.T, z.T))

    return loss


def spectrum(x, axis):
    return np.moveaxis(np.fft.fft(x, axis=axis, norm="ortho"), axis, -1)[
        ..., : x.shape[axis] // 2 + 1
    ]


def spectral_magnitude(axis, eps=1e-12):
    def one(s, t):
        size = [np.sqrt(np.abs(spectrum(x, axis)) ** 2 + eps) for x in (s, t)]
        return np.abs(np.log1p(size[0]) - np.log1p(size[1])).mean()

    return each(one)


def spectral_phase(axis):
    """By angles themselves: no bin of the inputs may be silent."""

    def one(s, t):
        a, b = spectrum(s, axis), spectrum(t, axis)
        gap = 1 - np.cos(np.angle(a) - np.angle(b))
        return (np.abs(b) * gap).sum() / np.abs(b).sum()

    return each(one)


def standardise(x, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def fitnet(normalise=False):
    prepare = standardise if normalise else lambda x: x
    return each(lambda s, t: ((prepare(s) - prepare(t)) ** 2).mean())


token_cosine = each(
    lambda s, t: np.mean(
        [
            1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            for a, b in zip(s, t, strict=True)
        ]
    )
)
attention_alignment = each(lambda s, t: ((s - t) ** 2).sum(-1).mean())


def uld(student, teacher):
    def one(s, t):
        total = 0.0
        for a, b in zip(s, t, strict=False):
            p, q = sorted(softmax(b))[::-1], sorted(softmax(a))[::-1]
            width = max(len(p), len(q))
            p, q = (np.pad(x, (0, width - len(x))) for x in (p, q))
            total += np.abs(p - q).sum()
        return total

    return each(one)(student, teacher)


def attention(student, teacher, params):
    """Multi-head cross-attention of one example, head by head, token by token."""
    out = np.zeros((len(student), params["out"].shape[-1]))
    for h in range(params["query"].shape[1]):
        q = student @ params["query"][:, h]
        k = teacher @ params["key"][:, h]
        v = teacher @ params["value"][:, h]
        for i in range(len(student)):
            weights = softmax(k @ q[i] / np.sqrt(q.shape[-1]))
            out[i] += (weights @ v) @ params["out"][h]
    return out


def next_token(tokens, vocabulary, labels):
    """Mean over targets of -log softmax, by a loop in float64."""
    logits = np.float64(tokens) @ np.float64(vocabulary)
    out = []
    for rows, label in zip(logits, labels, strict=True):
        found = [
            np.log(np.exp(row - row.max()).sum()) + row.max() - row[y]
            for row, y in zip(rows[:-1], label[1:], strict=True)
            if y >= 0
        ]
        out.append(np.mean(found) if found else 0.0)
    return np.array(out)
