"""Similarity of a batch's examples: similarity-preserving distillation and CKA.

Both compare b x b matrices over the batch of all devices; each device computes the rows
of its own examples. Widths of student and teacher may differ.
"""

import jax
import jax.numpy as jnp

from eegkd.losses.relation import spread
from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows
from eegkd.typing import Array, Bool, Float

_HIGHEST = jax.lax.Precision.HIGHEST


def similarity_preserving(
    student: Float[Array, " b *s"],
    teacher: Float[Array, " b *t"],
    mask: Bool[Array, " b"] | None = None,
    *,
    eps: float = 1e-12,
    axis_name: str | None = None,
) -> Float[Array, " b"]:
    """Computes the squared gap of the rows of two similarity matrices (SPKD).

    With A the activations `[b, s]` of all examples and G the matrix `A A^T` with rows
    of length one,

        value_i = (1 / b) sum_j (G_teacher[i, j] - G_student[i, j])^2

    whose mean over examples is the paper's `||G_t - G_s||_F^2 / b^2`.

    Args:
        student: Activations; each example is flattened.
        teacher: Activations; each example is flattened.
        mask: True where an example counts; 0 for the others.
        eps: Inside the root of a row's length.
        axis_name: The device axis to gather examples over.

    Example:
        >>> import jax.numpy as jnp
        >>> values = similarity_preserving(jnp.eye(2), jnp.ones((2, 3)))
        >>> [round(x, 4) for x in values.tolist()]
        [0.2929, 0.2929]

    References:
        Tung and Mori, "Similarity-preserving knowledge distillation", 2019, section
        3.
    """
    own, every = _gather(student, teacher, mask, axis_name)
    count = jnp.maximum(jnp.sum(every[2]), 1).astype(own[0].dtype)
    pairs = zip(own[:2], every[:2], strict=True)
    rows = [_unit_rows(x, everyone, eps) for x, everyone in pairs]
    value = jnp.sum((rows[1] - rows[0]) ** 2, axis=1) / count
    return jnp.where(own[2], value, 0)


def cka_distance(
    student: Float[Array, " b *s"],
    teacher: Float[Array, " b *t"],
    mask: Bool[Array, " b"] | None = None,
    *,
    eps: float = 1e-12,
    axis_name: str | None = None,
) -> Float[Array, " b"]:
    """Computes `1 - CKA` of a batch; every example has the same value.

    With X, Y the centred activations of all examples and K = X X^T, L = Y Y^T,

        CKA = sum(K * L) / sqrt(sum(K * K) sum(L * L))

    A shift, a rotation and a scale of either side change nothing. Examples that are all
    equal have CKA 0.

    Args:
        student: Activations; each example is flattened.
        teacher: Activations; each example is flattened.
        mask: True where an example counts.
        eps: Inside the roots, for activations scaled to about one.
        axis_name: The device axis to gather examples over.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[0.0], [1.0], [3.0]])
        >>> jnp.max(cka_distance(x, 1 - 2 * x)).item() < 1e-6
        True

    References:
        Kornblith et al., "Similarity of neural network representations revisited",
        2019, equations 3 and 4, linear kernel.
    """
    _, (all_student, all_teacher, kept) = _gather(student, teacher, mask, axis_name)
    first = jnp.zeros((), jnp.int32)
    if axis_name is not None:
        first = jax.lax.axis_index(axis_name) * student.shape[0]
    grams = []
    for x in (all_student, all_teacher):
        x = spread(x[None], kept[None])[0]
        own = jax.lax.dynamic_slice_in_dim(x, first, student.shape[0])
        grams.append(jnp.matmul(own, x.T, precision=_HIGHEST))
    k, l = grams
    sums = jnp.stack([jnp.sum(k * l), jnp.sum(k * k), jnp.sum(l * l)])
    if axis_name is not None:
        sums = jax.lax.psum(sums, axis_name)
    both, squares = sums[0], jax.lax.rsqrt(sums[1:] + eps)
    return jnp.broadcast_to(1 - both * squares[0] * squares[1], student.shape[:1])


def _gather(
    student: Array, teacher: Array, mask: Array | None, axis_name: str | None
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """Flattens examples; returns those of this device, and those of all."""
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"Student and teacher differ in examples: {student.shape}, {teacher.shape}."
        )
    b = student.shape[0]
    kept = jnp.ones(b, bool) if mask is None else jnp.asarray(mask)
    flat = lambda x: keep_rows(promote(x).reshape(b, -1), kept)
    own = flat(student), flat(teacher), kept
    if axis_name is None:
        return own, own
    return own, jax.lax.all_gather(own, axis_name, tiled=True)


def _unit_rows(
    own: Float[Array, "b d"], every: Float[Array, "n d"], eps: float
) -> Float[Array, "b n"]:
    """Returns rows of `own every^T` scaled to length one."""

    def scaled(x: Array, axis: int | None) -> Array:
        # A row's direction depends on neither scale: no product overflows or vanishes.
        size = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
        size = jax.lax.stop_gradient(size)
        there = size > jnp.finfo(x.dtype).tiny
        return jnp.where(there, x / jnp.where(there, size, 1), 0)

    rows = jnp.matmul(scaled(own, -1), scaled(every, None).T, precision=_HIGHEST)
    return rows * jax.lax.rsqrt(jnp.sum(rows**2, axis=1, keepdims=True) + eps)
