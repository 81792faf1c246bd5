"""Packs text and visual tokens of a row into one sequence of a fixed length.

A row is a list of parts in the order of the sequence: texts as token ids, and visual
tokens by their number. Which visual token stands where is worked out here, in NumPy;
the model then gathers once. Labels are those of the texts to be learned (an answer) and
`IGNORED` on visual positions, prompts and padding.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from eegkd.errors import InputError

IGNORED = -100
"""The label of a position that no loss counts."""

TEXT = -1
"""In `visual_at`: a text token, or padding, and no visual one."""

Side: TypeAlias = Literal["left", "right"]


class TextPart(NamedTuple):
    """A stretch of text.

    Attributes:
        ids: Token ids.
        learned: True if these are labels: an answer with its stop token.
    """

    ids: Sequence[int]
    learned: bool = False


class VisualPart(NamedTuple):
    """The next visual tokens of the row.

    Attributes:
        count: Number of tokens.
    """

    count: int


Part: TypeAlias = TextPart | VisualPart


def split_at_images(
    ids: Sequence[int],
    *,
    image_id: int,
    counts: Sequence[int],
    learned: Sequence[bool] | None = None,
    name: str = "row",
) -> list[Part]:
    """Cuts a tokenised text with placeholders of images into parts.

    Args:
        ids: Token ids, with one placeholder per image, or per visual token as the
            processors of transformers write.
        image_id: The placeholder.
        counts: Visual tokens of each image.
        learned: True for ids that are labels; None is none.
        name: Name of the row, for the message.

    Raises:
        InputError: If placeholders and images are not equally many.
    """
    is_image = np.asarray(ids) == image_id
    found, total = int(is_image.sum()), sum(counts)
    if found not in (len(counts), total):
        raise InputError(
            f"{name}: {found} image placeholders (token {image_id}) for {len(counts)} "
            f"images of {total} visual tokens: write one placeholder an image."
        )
    is_label = np.zeros(len(ids), bool) if learned is None else np.asarray(learned)
    # Each placeholder stands for all tokens of its image, or for one token.
    of_each = iter(counts if found == len(counts) else [1] * total)
    # A run of equal kind is one part.
    kinds = np.where(is_image, 2, is_label)
    bounds = [*np.flatnonzero(np.diff(kinds, prepend=-1)).tolist(), len(ids)]
    parts: list[Part] = []
    for start, stop in itertools.pairwise(bounds):
        if is_image[start]:
            parts.append(VisualPart(sum(next(of_each) for _ in range(start, stop))))
        else:
            parts.append(TextPart(ids[start:stop], learned=bool(is_label[start])))
    return parts


def count_positions(parts: Sequence[Part]) -> int:
    """Counts the positions that a row takes."""
    return sum(
        part.count if isinstance(part, VisualPart) else len(part.ids) for part in parts
    )


def pack_row(
    parts: Sequence[Part],
    *,
    length: int,
    side: Side = "right",
    pad_id: int = 0,
    name: str = "row",
) -> dict[str, np.ndarray]:
    """Packs one row.

    Args:
        parts: In the order of the sequence.
        length: Positions to pad to.
        side: Where padding is: right to train, left to generate.
        pad_id: A token id to look up where no text is; what it embeds is not used.
        name: Name of the row, for the message.

    Returns:
        Arrays of `length`: `ids i32` (`pad_id` at visual positions too); `visual_at
        i32`, the number of the row's visual token that stands there, else `TEXT`;
        `mask bool`, True where there is a token; `positions i32`, counted from the
        first token, 0 in padding; `labels i32`, the ids to be learned, not shifted,
        else `IGNORED`.

    Raises:
        InputError: If the row is longer, or an id is negative.
    """
    if pad_id < 0:
        raise InputError(
            f"pad_id={pad_id} is no token: take one of the vocabulary, as 0; it is not "
            "read."
        )
    num = count_positions(parts)
    if num > length:
        visual = sum(part.count for part in parts if isinstance(part, VisualPart))
        raise InputError(
            f"{name}: {num} tokens ({visual} visual, {num - visual} of text), and the "
            f"limit is {length}: shorten the text or raise the limit."
        )
    ids = np.full(num, pad_id, np.int32)
    visual_at = np.full(num, TEXT, np.int32)
    labels = np.full(num, IGNORED, np.int32)
    at, seen = 0, 0
    for part in parts:
        if isinstance(part, VisualPart):
            place = slice(at, at + part.count)
            visual_at[place] = np.arange(seen, seen + part.count)
            seen += part.count
        else:
            if min(part.ids, default=0) < 0:
                raise InputError(
                    f"{name}: token {min(part.ids)} is no text: cut it at its images "
                    "first (split_at_images), and give answers apart from prompts."
                )
            place = slice(at, at + len(part.ids))
            ids[place] = part.ids
            if part.learned:
                labels[place] = part.ids
        at = place.stop
    room = length - num
    pad = (room, 0) if side == "left" else (0, room)
    fills = {
        "ids": (ids, pad_id),
        "visual_at": (visual_at, TEXT),
        "mask": (np.ones(num, bool), False),
        "positions": (np.arange(num, dtype=np.int32), 0),
        "labels": (labels, IGNORED),
    }
    return {
        key: np.pad(values, pad, constant_values=fill)
        for key, (values, fill) in fills.items()
    }


def pack_rows(
    rows: Sequence[Sequence[Part]] | Mapping[str, Sequence[Part]],
    *,
    length: int | None = None,
    side: Side = "right",
    pad_id: int = 0,
) -> dict[str, np.ndarray]:
    """Packs a batch of rows, `[b, l]` each array of `pack_row`.

    Args:
        rows: The rows, or a mapping from their names to them.
        length: Positions to pad to; None is the longest row's, which compiles anew for
            every other length.
        side: As in `pack_row`.
        pad_id: As in `pack_row`.

    Raises:
        InputError: As in `pack_row`; if there is no row, or one has nothing in it.
    """
    named = rows if isinstance(rows, Mapping) else dict(enumerate(rows))
    empty = [str(name) for name, parts in named.items() if not count_positions(parts)]
    if empty or not named:
        where = f" in {', '.join(empty)}" if empty else ": there are no rows"
        raise InputError(
            f"Nothing to pack{where}. Give one row or more, each with a token or more."
        )
    if length is None:
        length = max(count_positions(parts) for parts in named.values())
    packed = [
        pack_row(
            parts,
            length=length,
            side=side,
            pad_id=pad_id,
            name=name if isinstance(name, str) else f"row {name}",
        )
        for name, parts in named.items()
    ]
    return {key: np.stack([row[key] for row in packed]) for key in packed[0]}
