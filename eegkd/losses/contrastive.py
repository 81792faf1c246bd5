"""The CLIP loss with several positives, over the batch of all devices."""

from typing import Literal

import jax
import jax.numpy as jnp

from eegkd.ops.dtypes import promote
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
        positives: What counts as a match.
        axis_name: The device axis to gather rows over.

    Returns:
        One number a local example, 0 where unlabelled (a term's count masks it).

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
