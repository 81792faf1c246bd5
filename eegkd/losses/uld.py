"""Distillation across tokenizers, whose vocabularies do not match."""

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.typing import Array, Bool, Float


def uld(
    student: Float[Array, "b n k"],
    teacher: Float[Array, "b m v"],
    student_mask: Bool[Array, "b n"] | None = None,
    teacher_mask: Bool[Array, "b m"] | None = None,
    *,
    temperature: float = 1.0,
) -> Float[Array, " b"]:
    """Sums over positions the L1 distance of sorted probabilities (ULD).

        value = sum_i sum_j |p_i(j) - q_i(j)|

    p_i(j), q_i(j) are the j-th largest probabilities of teacher and student at the
    i-th kept position, the smaller vocabulary padded with zeros. This is the
    Wasserstein distance for a cost that is 1 between any two tokens. Positions are as
    many as the shorter of the two answers has.

    Args:
        student: Logits.
        teacher: Logits over another vocabulary.
        student_mask: True at positions of the answer; they move up to the front.
        teacher_mask: As `student_mask`.
        temperature: Divides logits.

    Example:
        >>> import jax.numpy as jnp
        >>> uld(jnp.zeros((1, 1, 2)), jnp.zeros((1, 3, 4))).tolist()
        [1.0]

    References:
        Boizard et al., "Towards cross-tokenizer distillation: the universal logit
        distillation loss for LLMs", 2024 (arXiv 2402.12030), section 3.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is positive; got {temperature}.")
    length = min(student.shape[1], teacher.shape[1])
    width = max(student.shape[2], teacher.shape[2])
    q, q_kept = _sorted_answer(student, student_mask, length, width, temperature)
    p, p_kept = _sorted_answer(teacher, teacher_mask, length, width, temperature)
    gap = jnp.sum(jnp.abs(p - q), axis=-1)
    return jnp.sum(jnp.where(p_kept & q_kept, gap, 0), axis=-1)


def _sorted_answer(
    logits: Float[Array, "b n k"],
    mask: Bool[Array, "b n"] | None,
    length: int,
    width: int,
    temperature: float,
) -> tuple[Float[Array, "b i j"], Bool[Array, "b i"]]:
    """Returns descending probabilities of the first kept positions, and which exist."""
    if mask is None:
        mask = jnp.ones(logits.shape[:2], bool)
    # A stable sort of False (kept) before True brings answers to the front in order.
    order = jnp.argsort(~mask, axis=1, stable=True)[:, :length]
    kept = jnp.take_along_axis(mask, order, axis=1)
    front = jnp.take_along_axis(promote(logits), order[..., None], axis=1)
    front = jnp.where(kept[..., None], front, 0)
    probabilities = jax.nn.softmax(front / temperature, axis=-1)
    ranked = jnp.flip(jnp.sort(probabilities, axis=-1), axis=-1)
    return jnp.pad(ranked, ((0, 0), (0, 0), (0, width - ranked.shape[-1]))), kept
