"""Losses on logits and on one vector per example.

Each returns one number per example. None masks: a term's `count` does (an unlabelled
example has a finite value here, and no gradient).
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.pairwise import unit_vectors
from eegkd.typing import Array, Float, Int


def kd_kl(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes `T^2 KL(softmax(teacher / T) || softmax(student / T))`, per example.

    The factor keeps the gradient's size when T changes: as T grows, the value tends to
    `||zc_t - zc_s||^2 / (2 k)`, where zc are logits minus their mean. A class that the
    teacher rules out by a logit of -inf adds nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> round(kd_kl(jnp.array([[0.0, 0.0]]), jnp.array([[2.0, 0.0]])).item(), 4)
        0.3278

    References:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    log_p, log_q = _log_softmaxes(student, teacher, temperature)
    return temperature**2 * _divergence(log_p, log_q)


def reverse_kl(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes `T^2 KL(softmax(student / T) || softmax(teacher / T))`, per example.

    It seeks modes: a student too small to cover all of the teacher's classes keeps to
    some of them, where `kd_kl` spreads over all. The probability of a class that the
    teacher rules out by a logit of -inf is taken for the smallest normal number: its
    divergence is infinite, and would have no gradient that leads away from it.

    Example:
        >>> import jax.numpy as jnp
        >>> student, teacher = jnp.zeros((1, 2)), jnp.array([[2.0, 0.0]])
        >>> round(reverse_kl(student, teacher).item(), 4)
        0.4338

    References:
        Gu et al., "MiniLLM: knowledge distillation of large language models", 2024,
        section 2.1.
    """
    log_p, log_q = _log_softmaxes(student, teacher, temperature)
    least = jnp.log(jnp.finfo(log_p.dtype).tiny)
    log_p = jnp.where(log_p > -jnp.inf, log_p, least)
    return temperature**2 * _divergence(log_q, log_p)


def jensen_shannon(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes `T^2 (beta KL(p || m) + (1 - beta) KL(q || m))`, per example.

    p and q are the softmaxes of teacher and student at T, `m = beta p + (1 - beta) q`.
    It is at most `T^2 log 2`. As beta goes to 0, the value over beta tends to `kd_kl`;
    as it goes to 1, the value over `1 - beta` tends to `reverse_kl`.

    Example:
        >>> import jax.numpy as jnp
        >>> student = jnp.array([[9.0, -9.0]])
        >>> round(jensen_shannon(student, -student).item(), 4)
        0.6931

    References:
        Agarwal et al., "On-policy distillation of language models", 2024, section 2.
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta is between 0 and 1; got {beta}.")
    log_p, log_q = _log_softmaxes(student, teacher, temperature)
    parts = log_p + math.log(beta), log_q + math.log1p(-beta)
    log_m = jnp.logaddexp(*map(_finite, parts))  # finite where p = q = 0
    forward, backward = _divergence(log_p, log_m), _divergence(log_q, log_m)
    return temperature**2 * (beta * forward + (1 - beta) * backward)


def decoupled_kd(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    label: Int[Array, " b"],
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Float[Array, " b"]:
    """Computes `T^2 (alpha TCKD + beta NCKD)`, per example.

    With p, q the softmaxes of teacher and student at T and y the label,

        TCKD = KL([p_y, 1 - p_y] || [q_y, 1 - q_y])
        NCKD = KL(p without y, renormalised || q without y, renormalised)

    so that `kd_kl = T^2 (TCKD + (1 - p_y) NCKD)`: NCKD is no longer silenced where the
    teacher is sure. Everything is made of sums of logarithms; `1 - p_y` is never
    rounded, and a class far off has a finite value.

    Args:
        student: Logits.
        teacher: Logits.
        label: A negative one has value 0 and no gradient.
        alpha: Weight of the target class against the rest.
        beta: Weight of the rest among itself; the paper's 8 is for CIFAR-100, 0.5 (and
            T = 1) for ImageNet.
        temperature: T.

    Example:
        >>> import jax.numpy as jnp
        >>> teacher, label = jnp.array([[4.0, 1.0, 0.0]]), jnp.array([0])
        >>> round(decoupled_kd(teacher[:, ::-1], teacher, label).item(), 3)
        20.354

    References:
        Zhao et al., "Decoupled knowledge distillation", 2022, equation 7.
    """
    _check(student, teacher, temperature)
    target = jax.nn.one_hot(label, student.shape[-1], dtype=bool)

    def parts(logits: Array) -> tuple[Array, Array]:
        z = promote(logits) / temperature
        # The smallest finite number, not -inf: a problem of one class stays finite.
        rest = jnp.where(target, jnp.finfo(z.dtype).min, z)
        log_rest = jax.nn.logsumexp(rest, axis=-1)
        own = jnp.sum(jnp.where(target, z, 0), axis=-1)
        pair = jax.nn.log_softmax(jnp.stack([own, log_rest], axis=-1))
        return pair, jnp.where(target, 0, z - log_rest[:, None])

    (pair_p, among_p), (pair_q, among_q) = parts(teacher), parts(student)
    tckd, nckd = _divergence(pair_p, pair_q), _divergence(among_p, among_q)
    value = temperature**2 * (alpha * tckd + beta * nckd)
    return jnp.where(label >= 0, value, 0)


def binary_kd_kl(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes the mean over k labels of `kd_kl` of each one's yes against no.

    With s the logistic function, p = s(teacher / T), q = s(student / T), a label adds
    `T^2 (p log(p / q) + (1 - p) log((1 - p) / (1 - q)))`.

    Example:
        >>> import jax.numpy as jnp
        >>> round(binary_kd_kl(jnp.zeros((1, 2)), jnp.array([[2.0, 0.0]])).item(), 4)
        0.1639

    References:
        Yang et al., "Multi-label knowledge distillation", 2023, its logit part (there
        the sum over labels).
    """
    return _over_labels(kd_kl, student, teacher, temperature)


def binary_reverse_kl(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes the mean over k labels of `reverse_kl` of each one's yes against no.

    Example:
        >>> import jax.numpy as jnp
        >>> student, teacher = jnp.zeros((1, 2)), jnp.array([[2.0, 0.0]])
        >>> round(binary_reverse_kl(student, teacher).item(), 4)
        0.2169
    """
    return _over_labels(reverse_kl, student, teacher, temperature)


def binary_jensen_shannon(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes the mean over k labels of `jensen_shannon` of each one's yes against no.

    Example:
        >>> import jax.numpy as jnp
        >>> student, teacher = jnp.array([[9.0, 0.0]]), jnp.array([[-9.0, 0.0]])
        >>> round(binary_jensen_shannon(2 * student, 2 * teacher).item(), 4)
        0.3466
    """
    pair = functools.partial(jensen_shannon, beta=beta)
    return _over_labels(pair, student, teacher, temperature)


def cross_entropy(
    logits: Float[Array, "b k"],
    label: Int[Array, " b"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " b"]:
    """Computes `-sum_j y_j log softmax(logits)_j`, per example.

    `y` is `(1 - s) onehot(label) + s / k`, s being `label_smoothing`. An example with
    a negative label has y = 0: value 0, no gradient. A class that a logit of -inf rules
    out adds nothing unless y asks for it.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is in [0, 1); got {label_smoothing}.")
    log_q = jax.nn.log_softmax(promote(logits))
    num_classes = logits.shape[-1]
    target = jax.nn.one_hot(label, num_classes, dtype=log_q.dtype)
    target = (1 - label_smoothing) * target + label_smoothing / num_classes
    target = jnp.where((label >= 0)[:, None], target, 0)
    return -jnp.sum(target * _finite(log_q), axis=-1)


def binary_cross_entropy(
    logits: Float[Array, "b k"], label: Float[Array, "b k"]
) -> Float[Array, " b"]:
    """Computes the mean over known labels of `-y log s(z) - (1 - y) log s(-z)`.

    s is the logistic function. A negative label was not asked: it is no part of the
    mean. An example without a known one has value 0 and no gradient.
    """
    logits = promote(logits)
    label = label.astype(logits.dtype)
    values = jax.nn.softplus(logits) - label * logits
    known = label >= 0
    total = jnp.sum(jnp.where(known, values, 0), axis=-1)
    return total / jnp.maximum(jnp.sum(known, axis=-1), 1)


def cosine_distance(
    student: Float[Array, "b d"], teacher: Float[Array, "b d"]
) -> Float[Array, " b"]:
    """Computes `1 - cos(student, teacher)`, per example, for vectors of any length.

    A zero vector has cosine 0 and no gradient.
    """
    return 1 - jnp.sum(unit_vectors(student) * unit_vectors(teacher), axis=-1)


def _check(student: Array, teacher: Array, temperature: float) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"Student and teacher logits differ: {student.shape}, {teacher.shape}."
        )
    if temperature <= 0:
        raise ValueError(f"temperature is positive; got {temperature}.")


def _log_softmaxes(
    student: Array, teacher: Array, temperature: float
) -> tuple[Float[Array, "b k"], Float[Array, "b k"]]:
    """Returns the teacher's log p and the student's log q at a temperature."""
    _check(student, teacher, temperature)
    student, teacher = promote(student), promote(teacher)
    log_p = jax.nn.log_softmax(teacher / temperature)
    return log_p, jax.nn.log_softmax(student / temperature)


def _divergence(
    log_p: Float[Array, "b k"], log_q: Float[Array, "b k"]
) -> Float[Array, " b"]:
    """Computes `sum p (log p - log q)`; a class of p = 0 has value and gradient 0."""
    return jnp.sum(jnp.exp(log_p) * (_finite(log_p) - _finite(log_q)), axis=-1)


@jax.custom_jvp
def _finite(x: Array) -> Array:
    """Replaces -inf by the smallest finite number, and hands every derivative on.

    So derivatives are those of the plain formula, to the last bit.
    """
    return jnp.maximum(x, jnp.finfo(x.dtype).min)


@_finite.defjvp
def _finite_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _finite(*primals), tangents[0]


def _over_labels(
    pair: Callable[..., Array], student: Array, teacher: Array, temperature: float
) -> Float[Array, " b"]:
    """Averages over labels a loss of two classes, whose logits are `(z, 0)`."""
    _check(student, teacher, temperature)

    def two(z: Array) -> Array:
        z = promote(z).reshape(-1)
        return jnp.stack([z, jnp.zeros_like(z)], axis=-1)

    told = two(teacher)
    # (inf, 0) has no softmax; (0, -inf) is the same certainty.
    told = jnp.where(told[:, :1] == jnp.inf, jnp.array([0, -jnp.inf]), told)
    values = pair(two(student), told, temperature=temperature)
    return jnp.mean(values.reshape(student.shape), axis=-1)
