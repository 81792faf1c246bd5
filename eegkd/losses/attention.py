"""EVL-ECG's pointwise term: student tokens against the teacher's, brought to them."""

import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows, mean_kept
from eegkd.typing import Array, Bool, Float


def attention_alignment(
    student: Float[Array, "b n d"],
    aligned: Float[Array, "b n d"],
    mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, " b"]:
    """Computes `(1 / n) sum_i ||student_i - aligned_i||^2` over kept tokens.

    `aligned` is made by `eegkd.models.MultiHeadAlignment`: the teacher's tokens in
    the student's number and width. Softmax attention is the entropic transport
    plan with the row marginal alone, so each aligned token is the barycentre that the
    plan sends a student token to.

    Args:
        student: Student tokens.
        aligned: Teacher tokens, aligned by attention.
        mask: True where a student token counts.

    Example:
        >>> import jax.numpy as jnp
        >>> attention_alignment(jnp.ones((1, 3, 2)), jnp.zeros((1, 3, 2))).tolist()
        [2.0]

    References:
        EVL-ECG, arXiv 2605.29977, its multi-head cross-attention term (a
        reconstruction).
    """
    if student.shape != aligned.shape:
        raise ValueError(
            f"Student and aligned tokens differ: {student.shape}, {aligned.shape}."
        )
    gap = keep_rows(promote(student), mask) - keep_rows(promote(aligned), mask)
    return mean_kept(jnp.sum(gap**2, axis=-1), mask)
