"""Losses between a student's layer and one of the teacher's, or a mixture of several.

The mixture itself is made by `eegkd.models.LayerRouter` (last, mean, static softmax or
routed by the input), whose outputs these read.
"""

import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows, mean_kept
from eegkd.ops.mixing import standardise
from eegkd.ops.pairwise import unit_vectors
from eegkd.typing import Array, Bool, Float


def fitnet(
    student: Float[Array, "b *n d"],
    teacher: Float[Array, "b *n d"],
    mask: Bool[Array, " b *n"] | None = None,
    *,
    normalise: bool = False,
) -> Float[Array, " b"]:
    """Computes the mean squared difference of features over tokens and width.

    Args:
        student: Features, already at the teacher's width (`TokenProjector`).
        teacher: Features.
        mask: True where a token counts.
        normalise: Standardise both over the width first, as DLink's mimic term does: a
            mixture of layers is shorter than a layer, and would otherwise seem harder
            to match than it is.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[1.0, 2.0, 6.0]])
        >>> fitnet(x, x + 2).tolist()
        [4.0]
        >>> fitnet(x, 3 * x + 2, normalise=True).item() < 1e-6
        True

    Note:
        The paper has half the sum over the width; its mean keeps weights comparable
        between widths.

    References:
        Romero et al., "FitNets: hints for thin deep nets", 2015, equation 3; DLink,
        arXiv 2604.15016, its feature term (a reconstruction).
    """
    student, teacher = _prepare(student, teacher, mask)
    if normalise:
        student, teacher = standardise(student), standardise(teacher)
    return mean_kept(jnp.mean((student - teacher) ** 2, axis=-1), mask)


def token_cosine(
    student: Float[Array, "b *n d"],
    teacher: Float[Array, "b *n d"],
    mask: Bool[Array, " b *n"] | None = None,
) -> Float[Array, " b"]:
    """Computes the mean over tokens of `1 - cos(student, teacher)`.

    A zero token has cosine 0 and no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> token_cosine(jnp.eye(2)[None], jnp.array([[[1.0, 0.0]] * 2])).tolist()
        [0.5]

    References:
        DLink, arXiv 2604.15016, an option of its feature term (a reconstruction).
    """
    student, teacher = _prepare(student, teacher, mask)
    cosine = jnp.sum(unit_vectors(student) * unit_vectors(teacher), axis=-1)
    return mean_kept(1 - cosine, mask)


def negative_entropy(
    weights: Float[Array, "b l"], *, eps: float = 1e-12
) -> Float[Array, " b"]:
    """Computes `sum_l w_l log w_l`: falls as a router spreads over layers.

    As a term with a small weight that a schedule takes to zero (DLink: 0.01 for the
    first fifth of the steps) it keeps the router from settling on one layer at once.

    Example:
        >>> import jax.numpy as jnp
        >>> round(negative_entropy(jnp.array([[0.5, 0.5]])).item(), 4)
        -0.6931

    References:
        DLink, arXiv 2604.15016, its router (a reconstruction).
    """
    weights = promote(weights)
    return jnp.sum(weights * jnp.log(weights + eps), axis=-1)


def _prepare(student: Array, teacher: Array, mask: Array | None) -> tuple[Array, Array]:
    if student.shape != teacher.shape:
        raise ValueError(
            f"Student and teacher features differ: {student.shape}, {teacher.shape}; "
            "project the student to the teacher's width first."
        )
    return keep_rows(promote(student), mask), keep_rows(promote(teacher), mask)
