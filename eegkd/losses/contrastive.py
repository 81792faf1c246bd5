"""The CLIP loss and its distillation, over the batch of all devices."""

from typing import Literal

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
from eegkd.ops.masks import keep_rows
from eegkd.typing import Array, Bool, Float, Int


def clip_loss(
    eeg: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    label: Int[Array, " b"],
    *,
    positives: Literal["multi", "identity"] = "multi",
    axis_name: str | None = None,
) -> Float[Array, " b"]:
    """Computes the symmetric contrastive loss of matched embeddings, per example.

    With `s_ij = logit_scale <eeg_i, text_j>` over the examples of all devices,
    `Y_ij = 1[y_i = y_j] / n_i` and n_i the number of j with y_j = y_i:

        value_i = -(1/2) sum_j Y_ij (log softmax_j(s_ij) + log softmax_j(s_ji))

    `positives="identity"` has Y = 1 on the diagonal alone, which is CLIP's loss, as is
    "multi" when all labels differ.

    Args:
        eeg: Normalised to length one.
        text: Normalised to length one; row i belongs to `eeg`'s row i.
        logit_scale: The similarity's factor, exp(tau), already clamped.
        label: A negative one takes its example out: no row, no column, no positive.
        positives: Rule of matches.
        axis_name: The device axis to gather rows over.

    Returns:
        One number per local example, 0 where unlabelled (a term's count masks it).

    Example:
        >>> import jax.numpy as jnp
        >>> x, label = jnp.eye(3), jnp.array([0, 1, 1])
        >>> [round(x, 4) for x in clip_loss(x, x, jnp.float32(2.0), label).tolist()]
        [0.2395, 1.2395, 1.2395]

    Note:
        Where rows of a class share a text, with class logits z and class counts n, the
        EEG-to-text half is `CE(z + log n) + log n_y`: its floor is `E[log n_y]`.

    References:
        Radford et al., "Learning transferable visual models from natural language
        supervision", 2021, figure 3; Khosla et al., "Supervised contrastive learning",
        2020, equation 2, for several positives.
    """
    if eeg.shape != text.shape:
        raise ValueError(f"eeg {eeg.shape} and text {text.shape} differ in shape.")
    if positives not in ("multi", "identity"):
        raise ValueError(f"positives is 'multi' or 'identity'; got {positives!r}.")
    eeg, text, scale = promote(eeg), promote(text), promote(logit_scale)
    row = jnp.arange(label.shape[0])
    every = (eeg, text, label, row)
    if axis_name is not None:
        row = row + jax.lax.axis_index(axis_name) * label.shape[0]
        every = jax.lax.all_gather((eeg, text, label, row), axis_name, tiled=True)
    all_eeg, all_text, all_label, all_row = every
    own, other = (label, all_label) if positives == "multi" else (row, all_row)
    positive = (own[:, None] == other[None, :]) & (all_label >= 0)[None, :]
    forward = _cross_entropy(_similarity(eeg, all_text, scale), positive, all_label)
    backward = _cross_entropy(_similarity(text, all_eeg, scale), positive, all_label)
    return jnp.where(label >= 0, 0.5 * (forward + backward), 0)


def similarity_kl(
    student_eeg: Float[Array, "b d"],
    student_text: Float[Array, "b d"],
    student_scale: Float[Array, ""],
    teacher_eeg: Float[Array, "b e"],
    teacher_text: Float[Array, "b e"],
    teacher_scale: Float[Array, ""],
    mask: Bool[Array, " b"] | None = None,
    *,
    temperature: float = 1.0,
    axis_name: str | None = None,
) -> Float[Array, " b"]:
    """Distils the similarity matrix of two towers, rows and columns, per example.

    With `s_ij = scale <eeg_i, text_j> / T` over the examples of all devices, for the
    student s and the teacher t alike,

        value_i = (T^2 / 2) (KL(softmax_j t_ij || softmax_j s_ij)
                             + KL(softmax_j t_ji || softmax_j s_ji))

    No label is read: what counts is whom the teacher holds alike. Widths may differ.

    Args:
        student_eeg: Normalised to length one.
        student_text: Normalised to length one; row i belongs to `student_eeg`'s row i.
        student_scale: The similarity's factor, exp(tau), already clamped.
        teacher_eeg: As the student's.
        teacher_text: As the student's.
        teacher_scale: As the student's.
        mask: True where there is an example; others have no row, no column, value 0.
        temperature: T, over both scales.
        axis_name: The device axis to gather rows over.

    Example:
        >>> import jax.numpy as jnp
        >>> x, one = jnp.eye(2), jnp.float32(1.0)
        >>> [round(x, 4) for x in similarity_kl(x, x, one, x, x[::-1], one).tolist()]
        [0.4621, 0.4621]

    References:
        Yang et al., "CLIP-KD: an empirical study of CLIP model distillation", 2024,
        contrastive relational distillation; Wu et al., "TinyCLIP", 2023, affinity
        mimicking (there as a cross-entropy).
    """
    if temperature <= 0:
        raise ValueError(f"temperature is positive; got {temperature}.")
    b = student_eeg.shape[0]
    kept = jnp.ones(b, bool) if mask is None else jnp.asarray(mask)
    given = (student_eeg, student_text, teacher_eeg, teacher_text)
    towers = tuple(keep_rows(promote(x), kept) for x in given)
    every = (*towers, kept)
    if axis_name is not None:
        every = jax.lax.all_gather(every, axis_name, tiled=True)
    s_eeg, s_text, t_eeg, t_text = towers
    all_s_eeg, all_s_text, all_t_eeg, all_t_text, there = every
    student, teacher = (
        promote(scale) / temperature for scale in (student_scale, teacher_scale)
    )

    def divergence(s: Array, all_s: Array, t: Array, all_t: Array) -> Array:
        least = jnp.finfo(s.dtype).min
        log_q, log_p = (
            jax.nn.log_softmax(jnp.where(there, _similarity(*side), least))
            for side in ((s, all_s, student), (t, all_t, teacher))
        )
        return jnp.sum(jnp.where(there, jnp.exp(log_p) * (log_p - log_q), 0), axis=-1)

    both = divergence(s_eeg, all_s_text, t_eeg, all_t_text)
    both += divergence(s_text, all_s_eeg, t_text, all_t_eeg)
    return jnp.where(kept, 0.5 * temperature**2 * both, 0)


def _similarity(
    x: Float[Array, "b d"], y: Float[Array, "n d"], scale: Float[Array, ""]
) -> Float[Array, "b n"]:
    return scale * jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def _cross_entropy(
    logits: Float[Array, "b n"], positive: Bool[Array, "b n"], label: Int[Array, " n"]
) -> Float[Array, " b"]:
    """Computes the mean over positives of `logsumexp(labelled logits) - logit`."""
    # The smallest finite number, not -inf: a batch without labels stays finite.
    least = jnp.finfo(logits.dtype).min
    normaliser = jax.nn.logsumexp(jnp.where(label >= 0, logits, least), axis=-1)
    count = jnp.maximum(jnp.sum(positive, axis=-1), 1)
    return normaliser - jnp.sum(jnp.where(positive, logits, 0), axis=-1) / count
