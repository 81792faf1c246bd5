"""Relations inside a set of tokens or of examples: what survives a change of width.

All compare n x n matrices of student and teacher, so that widths may differ. Distances
do not depend on where the tokens lie or on their scale, so each set is moved and scaled
to numbers around one first: nothing overflows, and `eps` means the same at any scale.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows
from eegkd.ops.pairwise import pairwise_sqeuclidean, unit_vectors
from eegkd.typing import Array, Bool, Float

_HIGHEST = jax.lax.Precision.HIGHEST


def relation_distance(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b n e"],
    mask: Bool[Array, "b n"] | None = None,
    *,
    eps: float = 1e-12,
) -> Float[Array, " b"]:
    """Computes the mean squared gap of relative distances between tokens.

        psi(i, j) = ||h_i - h_j|| / (mean of it over pairs i != j)
        value = (1 / n^2) sum_ij (psi_teacher(i, j) - psi_student(i, j))^2

    A shift, a rotation and a scale of either set change nothing.

    Args:
        student: Tokens.
        teacher: As many tokens; for unlike counts, those that `MultiHeadAlignment`
            makes of the teacher's.
        mask: True where a token counts, in both sets alike.
        eps: Inside the root, for a set scaled to about one.

    Example:
        >>> import jax.numpy as jnp
        >>> line = jnp.arange(3.0)[None, :, None]
        >>> relation_distance(line, 5 * line + 1).tolist()
        [0.0]
        >>> round(16 * relation_distance(line, line**2).item(), 4)
        1.0

    References:
        EVL-ECG, arXiv 2605.29977, its relational term (a reconstruction); the
        potential is that of Park et al., "Relational knowledge distillation", 2019.
    """
    mask = _check(student, teacher, mask)
    gap = _relative_distances(teacher, mask, eps) - _relative_distances(
        student, mask, eps
    )
    return _mean_of_pairs(gap**2, mask)


def relation_angle(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b n e"],
    mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, " b"]:
    """Computes `(1 / n^2) sum_ij (cos(t_i, t_j) - cos(s_i, s_j))^2`, per example.

    A rotation of either set and a scale of any token change nothing. A zero token has
    cosine 0 with all, itself included.

    Args:
        student: Tokens.
        teacher: As many tokens.
        mask: True where a token counts, in both sets alike.

    Example:
        >>> import jax.numpy as jnp
        >>> round(relation_angle(jnp.eye(2)[None], jnp.ones((1, 2, 3))).item(), 4)
        0.5

    References:
        EVL-ECG, arXiv 2605.29977, its relational term (a reconstruction).
    """
    mask = _check(student, teacher, mask)
    gap = _cosines(teacher, mask) - _cosines(student, mask)
    return _mean_of_pairs(gap**2, mask)


def rkd_distance(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b n e"],
    mask: Bool[Array, "b n"] | None = None,
    *,
    eps: float = 1e-12,
) -> Float[Array, " b"]:
    """Computes `relation_distance` with the smooth L1 of the gap: classical RKD-D.

    Smooth L1 is `x^2 / 2` below 1 and `|x| - 1 / 2` above. The paper weighs the term by
    1 (metric learning) or 25 (classification).

    Example:
        >>> import jax.numpy as jnp
        >>> line = jnp.arange(3.0)[None, :, None]
        >>> round(32 * rkd_distance(line, line**2).item(), 4)
        1.0

    References:
        Park et al., "Relational knowledge distillation", 2019, section 3.2; there over
        the examples of a batch, here as `across_batch(rkd_distance)`.
    """
    mask = _check(student, teacher, mask)
    gap = _relative_distances(teacher, mask, eps) - _relative_distances(
        student, mask, eps
    )
    return _mean_of_pairs(_smooth_l1(gap), mask)


def rkd_angle(
    student: Float[Array, "b n d"],
    teacher: Float[Array, "b n e"],
    mask: Bool[Array, "b n"] | None = None,
    *,
    chunk: int = 16,
) -> Float[Array, " b"]:
    """Computes the smooth L1 gap of the angles in all triplets: classical RKD-A.

        value = (1 / n^3) sum_ijk smooth_l1(cos_teacher - cos_student),
        cos = <h_j - h_i, h_k - h_i> / (||h_j - h_i|| ||h_k - h_i||)

    All cosines come from the Gram matrix G, whose size does not depend on the width:
    `<h_j - h_i, h_k - h_i> = G_jk - G_ij - G_ik + G_ii`. Memory is `b chunk n^2`, that
    of the gradient as well: each chunk is computed again on the way back.

    Args:
        student: Tokens.
        teacher: As many tokens.
        mask: True where a token counts, in both sets alike.
        chunk: Vertices i at a time.

    Note:
        Tokens nearer than about 1e-3 (in float32) of the set's size are beyond the
        Gram matrix's precision and count as one place: the angle's cosine is 0, as for
        exactly equal ones in the original.

    Example:
        >>> import jax.numpy as jnp
        >>> right = jnp.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        >>> rkd_angle(right, -2 * right + 1).item() < 1e-6
        True
        >>> round(rkd_angle(right, right * jnp.array([1.0, 3.0])).item(), 4)
        0.0078

    References:
        Park et al., "Relational knowledge distillation", 2019, section 3.2; weight 2
        (metric learning) or 50 (classification).
    """
    mask = _check(student, teacher, mask)
    if chunk < 1:
        raise ValueError(f"chunk is at least 1; got {chunk}.")
    sides = _gram(teacher, mask), _gram(student, mask)

    @jax.checkpoint
    def vertex(i: Array) -> Float[Array, " b"]:
        gap, *other = (_cosines_at(i, *side) for side in sides)
        return jnp.sum(_smooth_l1(gap - other[0]), axis=(1, 2))

    n = student.shape[1]
    totals = jax.lax.map(vertex, jnp.arange(n), batch_size=min(chunk, n))
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(totals.dtype)
    return jnp.sum(totals, axis=0) / count**3


def across_batch(loss: Callable[..., Array]) -> Callable[..., Array]:
    """Returns a loss of token sets as one whose tokens are the batch's examples.

    The set is the batch of all devices, which every device computes on.

    Args:
        loss: `(student [1, n, d], teacher [1, n, e], mask [1, n]) -> [1]`.

    Returns:
        `(student [b, d], teacher [b, e], mask=None, *, axis_name=None) -> [b]`, the
        same value for each example.

    Example:
        >>> import jax.numpy as jnp
        >>> over_examples = across_batch(rkd_distance)
        >>> over_examples(jnp.eye(3), 2 * jnp.eye(3)).tolist()
        [0.0, 0.0, 0.0]
    """

    def over_batch(
        student: Float[Array, "b d"],
        teacher: Float[Array, "b e"],
        mask: Bool[Array, " b"] | None = None,
        *,
        axis_name: str | None = None,
    ) -> Float[Array, " b"]:
        kept = jnp.ones(student.shape[0], bool) if mask is None else mask
        every = student, teacher, kept
        if axis_name is not None:
            every = jax.lax.all_gather(every, axis_name, tiled=True)
        value = loss(*(x[None] for x in every))
        return jnp.broadcast_to(value, student.shape[:1])

    return over_batch


def _check(student: Array, teacher: Array, mask: Array | None) -> Bool[Array, "b n"]:
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"Relations need as many student as teacher tokens; got {student.shape} "
            f"and {teacher.shape}: align the teacher's first."
        )
    return jnp.ones(student.shape[:2], bool) if mask is None else jnp.asarray(mask)


def spread(x: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
    """Centres and rescales each set; masked tokens become zero.

    Equal tokens become exactly zero: the first one is taken off before the mean.
    """
    x = keep_rows(promote(x), mask)
    first = jnp.take_along_axis(x, jnp.argmax(mask, axis=1)[:, None, None], axis=1)
    x = keep_rows(x - first, mask)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(1, 2), keepdims=True))
    there = largest > jnp.finfo(x.dtype).tiny
    x = jnp.where(there, x / jnp.where(there, largest, 1), 0)
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(x.dtype)[:, None, None]
    return keep_rows(x - jnp.sum(x, axis=1, keepdims=True) / count, mask)


def _relative_distances(x: Array, mask: Array, eps: float) -> Float[Array, "b n n"]:
    x = spread(x, mask)
    apart = _pairs(mask) & ~jnp.eye(x.shape[1], dtype=bool)
    distance = jnp.where(apart, jnp.sqrt(pairwise_sqeuclidean(x, x) + eps), 0)
    count = jnp.sum(apart, axis=(1, 2), keepdims=True)
    total = jnp.sum(distance, axis=(1, 2), keepdims=True)
    return distance * count / jnp.where(count > 0, total, 1)


def _cosines(x: Array, mask: Array) -> Float[Array, "b n n"]:
    x = unit_vectors(keep_rows(promote(x), mask))
    return jnp.einsum("bnd,bmd->bnm", x, x, precision=_HIGHEST)


def _gram(x: Array, mask: Array) -> tuple[Float[Array, "b n n"], Float[Array, "b n n"]]:
    """Returns the Gram matrix and one over each distance, 0 where there is none."""
    x = spread(x, mask)
    gram = jnp.einsum("bnd,bmd->bnm", x, x, precision=_HIGHEST)
    square = jnp.diagonal(gram, axis1=1, axis2=2)
    both = square[:, :, None] + square[:, None, :]
    distance = both - 2 * gram
    apart = _pairs(mask) & (distance > 8 * jnp.finfo(gram.dtype).eps * both)
    return gram, jnp.where(apart, jax.lax.rsqrt(jnp.where(apart, distance, 1)), 0)


def _cosines_at(
    i: Array, gram: Float[Array, "b n n"], inverse: Float[Array, "b n n"]
) -> Float[Array, "b n n"]:
    """Computes the cosines of the angles at token i, between all pairs of others."""
    row, scale = gram[:, i], inverse[:, i]
    # Half of G_ii on either side: the sums of a row are small where its tokens are.
    row = row - 0.5 * row[:, i, None]
    inner = gram - row[:, :, None] - row[:, None, :]
    return inner * scale[:, :, None] * scale[:, None, :]


def _pairs(mask: Bool[Array, "b n"]) -> Bool[Array, "b n n"]:
    return mask[:, :, None] & mask[:, None, :]


def _mean_of_pairs(values: Float[Array, "b n n"], mask: Array) -> Float[Array, " b"]:
    count = jnp.maximum(jnp.sum(mask, axis=1), 1).astype(values.dtype)
    return jnp.sum(jnp.where(_pairs(mask), values, 0), axis=(1, 2)) / count**2


def _smooth_l1(x: Array) -> Array:
    size = jnp.abs(x)
    return jnp.where(size < 1, 0.5 * x**2, size - 0.5)
