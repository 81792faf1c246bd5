"""Checks of the values of prompts, images and results.

Values are known outside jit alone. Inside it a fault comes out as NaN.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eegkd.errors import InputError
from eegkd.ops.masks import boolean_mask, is_known
from eegkd.typing import Array, Bool, Float, Int

_SHOWN = 8
_MOST_BLOCKS = 1_000


def check_prompts(
    ids: Array | None, embeds: Array | None, mask: Array | None, vocab_size: int
) -> Bool[Array, "b l"] | None:
    """Checks prompts to be continued.

    Args:
        ids: Token ids `[b, l]`, or else `embeds`.
        embeds: Embeddings `[b, l, d]`.
        mask: True, or 1, where there is a token; None is everywhere.
        vocab_size: Number of token ids.

    Returns:
        The mask as booleans.

    Raises:
        InputError: If there are no prompts, one has no token, or an id is none of the
            vocabulary.
    """
    prompt = embeds if ids is None else ids
    if prompt is None:
        return mask
    if prompt.ndim != (2 if ids is not None else 3) or 0 in prompt.shape:
        raise InputError(
            f"Prompts have the shape {prompt.shape}: need ids [b, l] or embeds [b, l, "
            "d] of one prompt or more, and of one token or more."
        )
    if mask is not None:
        mask = boolean_mask(mask, prompt.shape[:2])
        if is_known(mask):
            _refuse(
                ~np.asarray(mask).any(axis=1),
                lambda rows: f"mask: no token in {rows}: leave it out, or give a text.",
            )
    if ids is not None:
        check_ids(ids, mask, vocab_size)
    return mask


def check_ids(
    ids: Int[Array, "*b"], mask: Any, vocab_size: int, name: str = "ids"
) -> None:
    """Checks that ids are of the vocabulary, where their values are known.

    Args:
        ids: Token ids.
        mask: True where they are used; None is everywhere.
        vocab_size: Number of token ids.
        name: Name of the argument, for the message.

    Raises:
        InputError: If an id is not of the vocabulary.
    """
    if not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"{name} are {ids.dtype}: token ids are whole numbers.")
    if not is_known(ids, mask):
        return
    values = np.asarray(ids)
    wrong = (values < 0) | (values >= vocab_size)
    if mask is not None:
        wrong &= np.asarray(mask)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{name}: token {values[place]} at {place} is none of the vocabulary of "
            f"{vocab_size}: take the tokenizer of this model's folder; mask padding, "
            "and cut texts at their images (eegkd.data.split_at_images)."
        )


def check_visual(visual_at: Int[Array, "b l"], there: Bool[Array, "b v"]) -> None:
    """Checks that each text has a place for each visual token, where all is known.

    Args:
        visual_at: Visual token at each position, below 0 for none.
        there: True for visual tokens that exist.

    Raises:
        InputError: If numbers differ, or a place is for a token that is not there.
    """
    if not is_known(visual_at, there):
        return
    at, kept = np.asarray(visual_at), np.asarray(there)
    cure = (
        "Cut the text with the counts of its own images (eegkd.data.split_at_images), "
        "and say by visual_mask where a row has fewer visual tokens than others."
    )
    for row, (places, mask) in enumerate(zip(at, kept, strict=True)):
        wanted = np.sort(places[places >= 0])
        have = np.flatnonzero(mask)
        if len(wanted) != len(have):
            raise InputError(
                f"visual_at: row {row} has places for {len(wanted)} visual tokens, and "
                f"its images have {len(have)} (visual_mask). {cure}"
            )
        if not np.array_equal(wanted, have):
            odd = np.setxor1d(wanted, have)[0]
            raise InputError(
                f"visual_at: row {row} has as many places as visual tokens, and not "
                f"one for each: see token {odd} (visual_mask). {cure}"
            )


def refuse_nan(values: Float[Array, " b *n"], what: str) -> None:
    """Refuses results that are no numbers, where they are known.

    Args:
        values: Results, NaN where a model's logits were.
        what: Name of the results, for the message.

    Raises:
        InputError: If any is NaN.
    """
    if not is_known(values):
        return
    lost = np.isnan(np.asarray(values, np.float32))
    _refuse(
        lost.any(axis=tuple(range(1, lost.ndim))),
        lambda rows: (
            f"{what}: the model's logits are no numbers (NaN) for {rows}: look for "
            "weights, embeddings or pixels that are none, visual tokens without a "
            "place, or a cache that is full."
        ),
    )


def check_depth(depth: int) -> None:
    """Refuses a number of blocks that cannot be traced, one after the other.

    Raises:
        ValueError: If it is below 1, or above 1,000.
    """
    if not 1 <= depth <= _MOST_BLOCKS:
        raise ValueError(f"depth is 1 to {_MOST_BLOCKS} blocks; got {depth}.")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses a value of a config that is not one of its choices.

    Raises:
        ValueError: If it is none of them.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is one of {known}; got {value!r}.")


def _refuse(wrong: Any, message: Callable[[str], str]) -> None:
    rows: Sequence[int] = np.flatnonzero(wrong).tolist()
    if rows:
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        some = ", ".join(str(row) for row in rows[:_SHOWN])
        raise InputError(message(f"row{'s' * (len(rows) > 1)} {some}{more}"))
