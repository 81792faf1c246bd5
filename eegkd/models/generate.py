"""Texts from a decoder, greedy or drawn.

A prompt is read in one call; then a loop inside one program reads one token at a time
against a cache of fixed size, and ends when every row has. Another length of prompt is
another program: pad prompts to few lengths.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from eegkd.models.checks import check_prompts, refuse_nan
from eegkd.models.decoder import Decoder
from eegkd.models.heads import apply_params
from eegkd.models.kv_cache import Cache
from eegkd.models.lora import apply_adapted
from eegkd.typing import Array, Float, Int, Key, Mask, PyTree

LOST = -1
"""In place of a token, where a model's logits were NaN: the row ends there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """Choice of tokens, and end of a row.

    Attributes:
        max_new_tokens: Most tokens of a row.
        stop_ids: Tokens that end a row.
        pad_id: Token behind a row's end.
        temperature: Temperature; 0 takes the likeliest token, above it tokens are drawn
            from `softmax(logits / temperature)`.
        top_p: Probability that the likeliest tokens have together; no others are drawn.

    Raises:
        ValueError: If a number is out of its range.
    """

    max_new_tokens: int
    stop_ids: Sequence[int] = ()
    pad_id: int = 0
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "Need max_new_tokens >= 1, temperature >= 0 and top_p in (0, 1]; got "
                f"{self.max_new_tokens}, {self.temperature}, {self.top_p}."
            )


class Generated(NamedTuple):
    """Tokens that follow each prompt.

    Attributes:
        tokens: Ids; behind a row's end the padding's; `LOST` where logits were NaN.
        lengths: Tokens of each row, the one that stopped it included.
        logprobs: The model's own log-likelihood of each token, whatever temperature it
            was drawn at; NaN where logits were; 0 behind a row's end.
    """

    tokens: Int[Array, "b t"]
    lengths: Int[Array, " b"]
    logprobs: Float[Array, "b t"]


def generate(
    decoder: Decoder,
    params: PyTree,
    ids: Int[Array, "b l"] | None = None,
    mask: Mask[Array, "b l"] | None = None,
    *,
    decoding: Decoding,
    embeds: Float[Array, "b l d"] | None = None,
    key: Key[Array, ""] | None = None,
    adapters: PyTree = None,
    alpha: float | None = None,
) -> Generated:
    """Continues prompts.

    Prompts and results are looked at, so the call waits for them. Inside jit, where
    neither is known, a row without tokens or of NaN has `LOST` in place of a token.

    Args:
        decoder: The model.
        params: Parameters of the model.
        ids: Prompts, or else `embeds`.
        mask: True where a prompt has a token, padding being on any side; None is
            everywhere.
        decoding: Choice of tokens, and end of a row.
        embeds: Prompts as embeddings, such as text and images together.
        key: Random key, for drawing; the same key draws the same tokens.
        adapters: Adapters from `init_adapters`.
        alpha: Alpha of the adapters' config; needed with them.

    Raises:
        InputError: If there are no prompts, one has no token, an id is none of the
            vocabulary, or logits are NaN.
        ValueError: If drawing has no key, or adapters come without alpha.
    """
    draws = decoding.temperature > 0
    if draws and key is None:
        raise ValueError(
            f"temperature={decoding.temperature} draws tokens: it needs a key."
        )
    vocab_size = decoder.cfg.vocab_size
    mask = check_prompts(ids, embeds, mask, vocab_size)
    prompt = embeds if ids is None else ids
    room = (0 if prompt is None else prompt.shape[1]) + decoding.max_new_tokens - 1
    adapted = {"adapters": adapters, "alpha": alpha}
    logits, cache = prefill(
        decoder, params, ids, mask, embeds=embeds, room=room, **adapted
    )
    top_p = jnp.float32(decoding.top_p) if draws and decoding.top_p < 1 else None
    generated, _ = _continue(
        decoder,
        params,
        logits,
        cache,
        Chooser(
            jnp.asarray(decoding.stop_ids, jnp.int32),
            jnp.int32(decoding.pad_id),
            key if draws else None,
            jnp.float32(decoding.temperature),
            top_p,
        ),
        max_new_tokens=decoding.max_new_tokens,
        **adapted,
    )
    refuse_nan(generated.logprobs, "generate")
    return generated


def prefill(
    decoder: Decoder,
    params: PyTree,
    ids: Int[Array, "b l"] | None = None,
    mask: Mask[Array, "b l"] | None = None,
    *,
    embeds: Float[Array, "b l d"] | None = None,
    room: int,
    adapters: PyTree = None,
    alpha: float | None = None,
) -> tuple[Float[Array, "b v"], Cache]:
    """Reads prompts in one call: logits of what follows, and a cache of `room` slots.

    The arguments are those of `generate`, and so is what is refused.
    """
    mask = check_prompts(ids, embeds, mask, decoder.cfg.vocab_size)
    return _prefill(
        decoder, params, ids, mask, embeds, room=room, adapters=adapters, alpha=alpha
    )


@functools.partial(jax.jit, static_argnames=("decoder", "room", "alpha"))
def _prefill(
    decoder: Decoder,
    params: PyTree,
    ids: Array | None,
    mask: Array | None,
    embeds: Array | None,
    *,
    room: int,
    adapters: PyTree,
    alpha: float | None,
) -> tuple[Float[Array, "b v"], Cache]:
    out = apply_decoder(
        decoder,
        params,
        adapters,
        alpha,
        ids=ids,
        mask=mask,
        embeds=embeds,
        room=room,
        logits="last",
    )
    return out["logits"][:, 0], out["cache"]


class Chooser(NamedTuple):
    """Chooses tokens: the arrays of a `Decoding`, so that one program serves all.

    Attributes:
        stop_ids: Tokens that end a row.
        pad_id: Token behind a row's end.
        key: Random key, for drawing; None takes the likeliest token.
        temperature: Divisor of the logits that tokens are drawn from.
        top_p: As in `Decoding`; None draws from all tokens.
    """

    stop_ids: Int[Array, " s"]
    pad_id: Int[Array, ""]
    key: Key[Array, ""] | None
    temperature: Float[Array, ""]
    top_p: Float[Array, ""] | None

    def __call__(
        self, step: Array, logits: Array, stopped: Array, out: Generated
    ) -> Any:
        """Returns the next step, its tokens, which rows have ended, and all tokens."""
        if self.key is None:
            token = jnp.argmax(logits, axis=-1)
        else:
            wanted = _nucleus(logits / self.temperature, self.top_p)
            token = jax.random.categorical(jax.random.fold_in(self.key, step), wanted)
        lost = jnp.isnan(logits).any(axis=-1)
        token = jnp.where(lost, LOST, token.astype(jnp.int32))
        token = jnp.where(stopped, self.pad_id, token)
        scores = jnp.where(stopped, 0, log_likelihood(logits, token))
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=1)
        out = Generated(
            put(out.tokens, token, step),
            out.lengths + ~stopped,
            put(out.logprobs, scores, step),
        )
        return step + 1, token, stopped | lost | jnp.isin(token, self.stop_ids), out


@functools.partial(
    jax.jit,
    static_argnames=("decoder", "max_new_tokens", "alpha"),
    donate_argnames="cache",
)
def _continue(
    decoder: Decoder,
    params: PyTree,
    logits: Float[Array, "b v"],
    cache: Cache,
    choose: Chooser,
    *,
    max_new_tokens: int,
    adapters: PyTree,
    alpha: float | None,
) -> tuple[Generated, Cache]:
    """Chooses tokens until every row has ended; the cache comes back to be reused."""
    b = logits.shape[0]

    def is_open(state: Any) -> Array:
        (step, _, stopped, _), _ = state
        return (step < max_new_tokens) & ~stopped.all()

    def read(state: Any) -> Any:
        (step, token, stopped, out), cache = state
        tensors = apply_decoder(
            decoder,
            params,
            adapters,
            alpha,
            ids=token[:, None],
            mask=~stopped[:, None],
            cache=cache,
        )
        chosen = choose(step, tensors["logits"][:, 0], stopped, out)
        return chosen, tensors["cache"]

    none = Generated(
        jnp.full((b, max_new_tokens), choose.pad_id),
        jnp.zeros(b, jnp.int32),
        jnp.zeros((b, max_new_tokens), logits.dtype),
    )
    chosen = choose(jnp.int32(0), logits, jnp.zeros(b, bool), none)
    (_, _, _, out), cache = jax.lax.while_loop(is_open, read, (chosen, cache))
    return out, cache


def apply_decoder(
    decoder: nn.Module,
    params: PyTree,
    adapters: PyTree,
    alpha: float | None,
    **inputs: Any,
) -> dict[str, Any]:
    """Calls a decoder, or a model around one, with adapters if there are any.

    Raises:
        ValueError: If adapters come without alpha: any default would be wrong.
    """
    if adapters is None:
        return apply_params(decoder, params, **inputs)
    if alpha is None:
        raise ValueError("adapters need alpha, that of their LoraConfig.")
    return apply_adapted(decoder, params, adapters, alpha=alpha, **inputs)


def log_likelihood(
    logits: Float[Array, "*#b v"], tokens: Int[Array, "*b"]
) -> Float[Array, "*b"]:
    """Computes the log-softmax at the tokens; leading axes may broadcast."""
    logits = jnp.broadcast_to(logits, (*tokens.shape, logits.shape[-1]))
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _nucleus(
    logits: Float[Array, "b v"], top_p: Float[Array, ""] | None
) -> Float[Array, "b v"]:
    """Bars all tokens but the likeliest that have the probability `top_p` together."""
    if top_p is None:
        return logits
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # The likeliest token always stays: nothing stands before it.
    lowest = jnp.min(
        ordered, axis=-1, keepdims=True, where=before < top_p, initial=jnp.inf
    )
    return jnp.where(logits >= lowest, logits, -jnp.inf)
