"""Losses on logits and on one vector an example.

Each returns one number an example. None masks: a term's `count` does (an unlabelled
example has a finite value here, and no gradient).
"""

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Float, Int


def kd_kl(
    student: Float[Array, "b k"],
    teacher: Float[Array, "b k"],
    *,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Computes `T^2 KL(softmax(teacher / T) || softmax(student / T))`, per example.

    The factor keeps the gradient's size when T changes: as T grows, the value tends to
    `||zc_t - zc_s||^2 / (2 k)`, where zc are logits minus their mean.

    References:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"Student and teacher logits differ: {student.shape}, {teacher.shape}."
        )
    student, teacher = promote(student), promote(teacher)
    log_p = jax.nn.log_softmax(teacher / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def cross_entropy(
    logits: Float[Array, "b k"],
    label: Int[Array, " b"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " b"]:
    """Computes `-sum_j y_j log softmax(logits)_j`, per example.

    `y` is `(1 - s) onehot(label) + s / k`, s being `label_smoothing`. An example with
    a negative label has y = 0: value 0, no gradient.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is in [0, 1); got {label_smoothing}.")
    log_q = jax.nn.log_softmax(promote(logits))
    num_classes = logits.shape[-1]
    target = jax.nn.one_hot(label, num_classes, dtype=log_q.dtype)
    target = (1 - label_smoothing) * target + label_smoothing / num_classes
    target = jnp.where((label >= 0)[:, None], target, 0)
    return -jnp.sum(target * log_q, axis=-1)


def binary_cross_entropy(
    logits: Float[Array, "b k"], label: Float[Array, "b k"]
) -> Float[Array, " b"]:
    """Computes the mean over k labels of `-y log s(z) - (1 - y) log s(-z)`.

    s is the logistic function. A negative (unlabelled) entry adds nothing.
    """
    logits = promote(logits)
    label = label.astype(logits.dtype)
    values = jax.nn.softplus(logits) - label * logits
    return jnp.mean(jnp.where(label >= 0, values, 0), axis=-1)


def cosine_distance(
    student: Float[Array, "b d"],
    teacher: Float[Array, "b d"],
    *,
    eps: float = 1e-12,
) -> Float[Array, " b"]:
    """Computes `1 - cos(student, teacher)`, per example; finite at a zero vector."""
    student, teacher = promote(student), promote(teacher)
    dot = jnp.sum(student * teacher, axis=-1)
    squares = jnp.sum(student**2, axis=-1) * jnp.sum(teacher**2, axis=-1)
    return 1 - dot * jax.lax.rsqrt(squares + eps)
