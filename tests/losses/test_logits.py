"""What is special to losses on logits; what all losses keep to is in test_contract."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from eegkd.losses import (
    binary_cross_entropy,
    binary_jensen_shannon,
    binary_kd_kl,
    binary_reverse_kl,
    cosine_distance,
    cross_entropy,
    decoupled_kd,
    jensen_shannon,
    kd_kl,
    reverse_kl,
)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_kd_kl_tends_to_the_distance_of_centred_logits():
    s, z = draw(2, 4, 5)
    centred = lambda x: x - x.mean(-1, keepdims=True)
    want = ((centred(z) - centred(s)) ** 2).sum(-1) / (2 * 5)
    with jax.enable_x64(True):
        got = jax.jit(functools.partial(kd_kl, temperature=1e4))(s, z)
    np.testing.assert_allclose(got, want, rtol=1e-3)


def test_kd_kl_does_not_stop_the_teacher():
    s, z = draw(2, 4, 5).astype(np.float32)
    assert np.all(jax.jit(jax.grad(lambda z: kd_kl(s, z).sum()))(z) != 0)


def test_kd_kl_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\)"):
        kd_kl.__wrapped__(jnp.ones((2, 3)), jnp.ones((2, 4)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_matches_numpy(smoothing):
    z, label = draw(6, 4), np.array([0, 3, -1, 2, -1, 1])
    target = np.eye(4)[label] * (1 - smoothing) + smoothing / 4
    want = np.where(label < 0, 0, -(target * np.log(softmax(z))).sum(-1))
    fn = functools.partial(cross_entropy, label_smoothing=smoothing)
    np.testing.assert_allclose(jax.jit(fn)(z, label), want, rtol=1e-5)
    grad = jax.jit(jax.grad(lambda z: fn(z, label).sum()))(z)
    np.testing.assert_array_equal(grad[label < 0], 0)
    assert np.all(np.abs(grad[label >= 0]).sum(-1) > 0)


def test_cross_entropy_of_far_logits_is_finite():
    z = np.float32([[1e4, -1e4]])
    np.testing.assert_allclose(jax.jit(cross_entropy)(z, np.array([1])), 2e4)


def test_a_class_ruled_out_adds_nothing_to_the_cross_entropy_of_others():
    z, label = draw(4, 3).astype(np.float32), np.array([0, 1, -1, 2])
    z[:, 1] = [-np.inf, 1, -np.inf, -np.inf]
    total = jax.value_and_grad(lambda z: cross_entropy(z, label).sum())
    value, grad = jax.jit(total)(z)
    q = softmax(z)
    assert value == pytest.approx(-np.log(q[[0, 1, 3], [0, 1, 2]]).sum(), rel=1e-5)
    want = (q - np.eye(3)[label]) * (label >= 0)[:, None]
    np.testing.assert_allclose(grad, want, atol=1e-6)


def test_cross_entropy_refuses_a_smoothing_of_one():
    with pytest.raises(ValueError, match=r"got 1\.0"):
        cross_entropy(jnp.ones((1, 2)), jnp.array([0]), label_smoothing=1.0)


def test_binary_cross_entropy_matches_numpy():
    z = draw(5, 3)
    y = np.random.default_rng(1).integers(0, 2, (5, 3)).astype(float)
    y[2] = -1
    p = 1 / (1 + np.exp(-z))
    want = np.where(y < 0, 0, -(y * np.log(p) + (1 - y) * np.log(1 - p))).mean(-1)
    compiled = jax.jit(binary_cross_entropy)
    np.testing.assert_allclose(compiled(z, y), want, rtol=1e-5)
    grad = jax.jit(jax.grad(lambda z: compiled(z, y).sum()))(z)
    np.testing.assert_array_equal(grad[2], 0)
    assert np.isfinite(compiled(np.array([[1e4]]), np.zeros((1, 1))))
    y[0, :2] = y[1, 1] = -1
    cells = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    want = [cells[i][y[i] >= 0].mean() if i != 2 else 0 for i in range(5)]
    np.testing.assert_allclose(compiled(z, y), want, rtol=1e-5)
    grad = jax.jit(jax.grad(lambda z: compiled(z, y).sum()))(z)
    np.testing.assert_array_equal(grad[y < 0], 0)


def test_cosine_distance_matches_numpy():
    s, t = draw(2, 5, 8)
    norm = np.linalg.norm
    want = 1 - (s * t).sum(-1) / (norm(s, axis=-1) * norm(t, axis=-1))
    np.testing.assert_allclose(jax.jit(cosine_distance)(s, t), want, rtol=1e-4)


def test_cosine_distance_knows_no_length():
    """From squares that vanish to squares that overflow in float32."""
    s, t = draw(2, 1, 8)
    size = np.array([0.0, 1e-34, 1e-30, 1e-12, 1e-6, 1, 1e12, 1e30, 1e37])[:, None]
    cosine = (s * t).sum() / np.linalg.norm(s) / np.linalg.norm(t)
    want = 1 - np.where(size[:, 0] > 0, cosine, 0)
    small, large = ((size * s, t + 0 * size), (t + 0 * size, size * s))
    pair = jax.value_and_grad(lambda s, t: cosine_distance(s, t).sum())

    @jax.jit
    def both(s, t):
        return cosine_distance(s, t), pair(s, t)[1]

    for given in (small, large):
        value, grad = both(*np.float32(given))
        np.testing.assert_allclose(value, want, rtol=1e-5)
        assert np.all(np.isfinite(grad))
    assert np.all(both(*np.float32(small))[1][0] == 0)
    # Its gradient goes as one over the length, as far as that is a number.
    grad = both(*np.float32(small))[1][2:-1] * np.float32(size[2:-1])
    np.testing.assert_allclose(grad, grad[:1] + 0 * grad, rtol=1e-4)


RULED_OUT = {
    "kd_kl": kd_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "decoupled": lambda s, t: decoupled_kd(s, t, jnp.array([0, 1, 2, 0])),
    "binary_kd_kl": binary_kd_kl,
    "binary_reverse_kl": binary_reverse_kl,
    "binary_jensen_shannon": binary_jensen_shannon,
}


def test_a_class_that_is_ruled_out_leaves_values_and_gradients_finite():
    """By a logit of -inf: in the teacher, in both, in the label's class."""
    s, t = draw(2, 4, 3)
    t[0, 1] = t[1, 2] = t[2, 2] = t[3, 0] = t[3, 1] = -np.inf
    s[0, 1] = s[3, 1] = -np.inf

    @jax.jit
    def all_of(s, t):
        total = lambda fn: lambda s: fn(s, t).sum()
        return {n: (fn(s, t), jax.grad(total(fn))(s)) for n, fn in RULED_OUT.items()}

    with jax.enable_x64(True):
        found = all_of(s, t)
        far = all_of(*(np.maximum(x, -600) for x in (s, t)))
    for name, (value, grad) in found.items():
        assert np.all(np.isfinite(value)), name
        assert np.all(np.isfinite(grad)), name
        if "reverse" not in name:  # there the divergence itself grows with the logit
            np.testing.assert_allclose(value, far[name][0], rtol=1e-9, err_msg=name)
            np.testing.assert_allclose(grad, far[name][1], atol=1e-9, err_msg=name)
    value, grad = found["kd_kl"]
    p, q = softmax(t), softmax(s)
    gap = np.where(p > 0, np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0)
    np.testing.assert_allclose(value, (p * gap).sum(-1), rtol=1e-9)
    np.testing.assert_allclose(grad, q - p, atol=1e-12)
    value, grad = found["reverse_kl"]
    least = np.maximum(p, np.finfo(float).tiny)
    gap = np.where(q > 0, np.log(np.where(q > 0, q, 1) / least), 0)
    np.testing.assert_allclose(value, (q * gap).sum(-1), rtol=1e-9)
    assert np.asarray(grad)[1, 2] > 0  # away from what the teacher rules out
    certain = binary_kd_kl(jnp.zeros((1, 2)), jnp.array([[jnp.inf, -jnp.inf]]))
    assert certain.item() == pytest.approx(np.log(2))


LOSSES = {
    "cross_entropy": lambda s: cross_entropy(s, jnp.arange(4) - 1),
    "binary": lambda s: binary_cross_entropy(s, (s > 0).astype(s.dtype)),
    "cosine": lambda s: cosine_distance(s, s[::-1]),
}


@pytest.mark.parametrize("fn", LOSSES.values(), ids=LOSSES)
def test_gradient_and_number_type(fn):
    x, fn = draw(4, 5), jax.jit(fn)
    for dtype in (jnp.bfloat16, jnp.float32):
        assert fn(x.astype(dtype)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert fn(x).dtype == jnp.float64
        check_grads(fn, (x,), order=1, modes=["rev"])


def test_decoupled_parts_add_up_to_the_divergence():
    """`kd_kl = T^2 (TCKD + (1 - p_y) NCKD)`."""
    s, z = (x.astype(np.float32) for x in draw(2, 6, 5))
    label = np.arange(6) % 5

    @jax.jit
    def parts(s, z):
        part = functools.partial(decoupled_kd, s, z, label, temperature=2.0)
        both = part(alpha=1.0, beta=0.0), part(alpha=0.0, beta=1.0)
        return *both, kd_kl(s, z, temperature=2.0)

    target, others, want = parts(s, z)
    rest = 1 - softmax(z / 2)[np.arange(6), label]
    np.testing.assert_allclose(target + rest * others, want, rtol=1e-4)


@pytest.mark.parametrize("far", [50.0, 1e4])
def test_decoupled_stays_exact_where_the_teacher_is_sure(far):
    """Masking by -1000 and log(softmax) gives -inf or a wrong class here."""
    teacher = np.array([[far, 0.0, 1.0]], np.float32)
    student = np.array([[0.0, 3.0, -2000.0]], np.float32)
    fn = functools.partial(decoupled_kd, alpha=0.0, beta=1.0, temperature=1.0)
    p = softmax(np.array([0.0, 1.0]))
    want = (p * (np.log(p) - np.array([0.0, -2003.0]))).sum()
    total = jax.value_and_grad(lambda s, t: fn(s, t, np.array([0])).sum())
    value, grad = jax.jit(total)(student, teacher)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(grad[0], [0, 1 - p[0], -p[1]], atol=1e-5)


def test_decoupled_without_a_label_is_zero():
    s, z = draw(2, 3, 4).astype(np.float32)
    fn = lambda s: decoupled_kd(s, z, np.array([0, -1, 3])).sum()
    grad = np.asarray(jax.jit(jax.grad(fn))(s))
    np.testing.assert_array_equal(grad[1], 0)
    assert np.all(np.any(grad[[0, 2]] != 0, axis=1))


def test_jensen_shannon_lies_between_both_divergences():
    s, z = (x.astype(np.float32) for x in draw(2, 4, 5))
    with jax.enable_x64(True):
        double = s.astype(np.float64), z.astype(np.float64)
        run = lambda *args: [jensen_shannon(*args, beta=x) for x in (1e-5, 1 - 1e-5)]
        near = [np.asarray(x) for x in jax.jit(run)(*double)]
    np.testing.assert_allclose(near[0] / 1e-5, jax.jit(kd_kl)(s, z), rtol=1e-3)
    np.testing.assert_allclose(near[1] / 1e-5, jax.jit(reverse_kl)(s, z), rtol=1e-3)
    fn = jax.jit(jensen_shannon)
    np.testing.assert_allclose(fn(s, z), fn(z, s), rtol=1e-5)
    assert np.all(fn(100 * s, -100 * z) <= np.log(2) + 1e-6)


@pytest.mark.parametrize(
    ("binary", "loss"),
    [
        (binary_kd_kl, kd_kl),
        (binary_reverse_kl, reverse_kl),
        (binary_jensen_shannon, jensen_shannon),
    ],
)
def test_a_label_is_two_classes(binary, loss):
    s, z = (x.astype(np.float32) for x in draw(2, 4, 1))
    pair = lambda x: np.concatenate([x, 0 * x], axis=1)
    warm = lambda fn: jax.jit(functools.partial(fn, temperature=3.0))
    want = warm(loss)(pair(s), pair(z))
    np.testing.assert_allclose(warm(binary)(s, z), want, rtol=1e-5)


@pytest.mark.parametrize(
    "fn", [kd_kl, reverse_kl, jensen_shannon, binary_kd_kl, binary_jensen_shannon]
)
def test_bad_arguments_of_divergences(fn):
    ones = np.ones((1, 2))
    with pytest.raises(ValueError, match=r"\(1, 2\), \(1, 3\)|\(1, 3\), \(1, 2\)"):
        getattr(fn, "__wrapped__", fn)(ones, np.ones((1, 3)))
    with pytest.raises(ValueError, match="got 0"):
        fn(ones, ones, temperature=0.0)


def test_a_mixture_of_one_is_refused():
    with pytest.raises(ValueError, match=r"beta .* got 1\.0"):
        jensen_shannon(jnp.ones((1, 2)), jnp.ones((1, 2)), beta=1.0)
