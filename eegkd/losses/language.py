"""Next-token cross-entropy, a few tokens' logits in memory at a time."""

import jax
import jax.numpy as jnp

from eegkd.ops.placing import gather_columns, split_batch
from eegkd.typing import Array, Float, Int

CHUNK = 256


def next_token_loss(
    tokens: Float[Array, "b l d"],
    vocabulary: Float[Array, "d v"],
    labels: Int[Array, "b l"],
    *,
    chunk: int = CHUNK,
) -> Float[Array, " b"]:
    """Computes the mean of `-log softmax(h_i W)[y_{i+1}]` over an example's targets.

    The logits of 8 x 2,048 tokens over 32,000 words take 2 GB in float32, and their
    gradient as much again. So the product with W is part of the loss: it takes `chunk`
    tokens of every example at a time, and again in the backward pass. The value is the
    same for any chunk, up to rounding.

    Args:
        tokens: After the decoder's last norm.
        vocabulary: The language-model head, one column per word.
        labels: Word ids aligned with the tokens, so that token i is to predict label
            i + 1; negative ones (-100: prompts, images, padding) are no targets.
        chunk: Tokens of each example at a time.

    Returns:
        0 for an example without targets, NaN where a target is no word of the
        vocabulary. `num_targets` is the count that makes a mean
        over examples one over all targets.

    Raises:
        ValueError: If `chunk` is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> tokens, labels = jnp.zeros((1, 3, 2)), jnp.array([[-100, 3, -100]])
        >>> round(next_token_loss(tokens, jnp.ones((2, 4)), labels).item(), 4)
        1.3863
    """
    if chunk < 1:
        raise ValueError(f"chunk is at least 1; got {chunk}.")
    length, width = tokens.shape[1:]
    targets = _targets(labels)
    num = -(-length // min(chunk, length))
    chunk = -(-length // num)
    spare = num * chunk - length
    pieces = (
        jnp.pad(tokens, ((0, 0), (0, spare), (0, 0))),
        jnp.pad(targets, ((0, 0), (0, spare)), constant_values=-1),
    )
    # Cut along the length: examples lie on other devices.
    pieces = (
        pieces[0].reshape(-1, num, chunk, width).swapaxes(0, 1),
        pieces[1].reshape(-1, num, chunk).swapaxes(0, 1),
    )
    wide = jnp.promote_types(tokens.dtype, jnp.float32)
    vocabulary = gather_columns(vocabulary.astype(tokens.dtype))

    def add(total: Array, piece: tuple[Array, Array]) -> tuple[Array, None]:
        x, y = split_batch(piece[0]), piece[1]
        logits = jnp.einsum("bcd,dv->bcv", x, vocabulary, preferred_element_type=wide)
        # A sum over words, and no lookup: words may lie on other devices too.
        hit = jnp.arange(logits.shape[-1]) == y[..., None]
        picked = jnp.sum(jnp.where(hit, logits, 0), axis=-1)
        loss = jax.nn.logsumexp(logits, axis=-1) - picked
        loss = jnp.where(y < logits.shape[-1], loss, jnp.nan)
        return total + jnp.sum(jnp.where(y >= 0, loss, 0), axis=-1), None

    zero = jnp.zeros(len(tokens), wide)
    if num > 1:  # One piece is in memory at once anyway, and is not computed again.
        add = jax.checkpoint(add, prevent_cse=False)
    total, _ = jax.lax.scan(add, zero, pieces)
    return total / jnp.maximum(num_targets(labels), 1).astype(wide)


def num_targets(labels: Int[Array, "b l"]) -> Int[Array, " b"]:
    """Counts the targets of each example.

    Example:
        >>> import jax.numpy as jnp
        >>> num_targets(jnp.array([[5, 7, -100], [-100, -100, 2]])).tolist()
        [1, 1]
    """
    return jnp.sum(_targets(labels) >= 0, axis=-1)


def _targets(labels: Array) -> Array:
    """Moves labels to the token that predicts them; the last one predicts nothing."""
    return jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
