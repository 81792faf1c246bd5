"""Conversations about images, as a LLaVA reads them: one call from words to arrays.

A tokenizer and an image processor come from the model's folder (transformers'); what
they return is packed here. Nothing is cut off: too long a text is refused, and an image
is padded to a square, where the processor's crop would lose its edges.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from eegkd.data.images.anyres import (
    AnyresConfig,
    count_tiles,
    row_index,
    stack_tiles,
    unpad_box,
)
from eegkd.data.language.packing import Part, Side, pack_rows, split_at_images
from eegkd.errors import InputError

IMAGE = "<image>"
"""Placeholder of an image in a text."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PACKED = ("ids", "mask", "positions", "labels")


class Turn(NamedTuple):
    """A stretch of a conversation.

    Attributes:
        text: All of it, roles and separators too; `IMAGE` in place of an image.
        learned: True if it is learned: an answer, with the stop token after it.
    """

    text: str
    learned: bool = False


class Conversation(NamedTuple):
    """A row of a batch.

    Attributes:
        turns: In their order; joined, they are the text.
        images: `uint8 [h, w, 3]` or of PIL, one for each `IMAGE` in the text.
    """

    turns: Sequence[Turn]
    images: Sequence[Any] = ()


class ModelConfig(Protocol):
    """Fields of a model's config, such as `models.LlavaConfig`, that are read here."""

    @property
    def vision(self) -> Any:
        """Config of the tower, with `image_size` and `patch_size`."""
        ...

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Grids of LLaVA-1.6; () is LLaVA-1.5."""
        ...


def prepare_conversations(
    rows: Sequence[Conversation] | Mapping[str, Conversation],
    tokenizer: Callable[..., Any],
    processor: Callable[..., Any],
    model: ModelConfig,
    *,
    side: Side = "right",
    length: int | None = None,
    num_images: int | None = None,
    aspect: Literal["pad", "crop"] = "pad",
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tokenises texts, cuts images, and packs both.

    Args:
        rows: Conversations, or a mapping from their names to them.
        tokenizer: Tokenizer of the model's folder; it gives offsets, knows `IMAGE`.
        processor: Image processor of the same folder.
        model: Config of the model.
        side: Where padding is: right to train, left to generate.
        length: Positions to pad to; None is the longest row's, which compiles anew for
            every other length.
        num_images: The most images of a row, so that batches have one shape; None is
            that of these rows.
        aspect: Treatment of images that are not square, in LLaVA-1.5: "pad" adds
            borders of CLIP's mean colour; "crop" leaves it to the processor, which
            mostly loses the edges of the longer side.

    Returns:
        The text: `ids`, `mask`, `positions` and `labels` (`[b, l]`, as `pack_rows`
        makes them, labels in learned turns alone); and the images, as
        `models.generate_text` takes them: `visual_at [b, l]`, `pixels [b, p, s, s, 3]`,
        `visual_mask [b, v]`, of LLaVA-1.6 `visual_index [b, v]`; {} if there are none.
        Both together are a batch to train on.

    Raises:
        InputError: If a text is too long, has another number of `IMAGE` than there are
            images, or a token that is partly answer; if an image is none; if tokenizer
            or image processor are not of this model.
    """
    named = rows if isinstance(rows, Mapping) else dict(enumerate(rows))
    named = {k if isinstance(k, str) else f"row {k}": row for k, row in named.items()}
    for name, row in named.items():
        _check_row(row, name)
    most = max((len(row.images) for row in named.values()), default=0)
    num_images = most if num_images is None else num_images
    if most > num_images:
        raise InputError(
            f"A row has {most} images, more than num_images={num_images}: raise it."
        )
    parts: dict[str, list[Part]] = {}
    seen: list[dict[str, np.ndarray]] = []
    for name, row in named.items():
        arrays = [_as_pixels(image, name) for image in row.images]
        if not model.grids and aspect == "pad":
            arrays = [pad_to_square(array) for array in arrays]
        counts, images = _see(arrays, processor, model, num_images, name)
        parts[name] = _read(row.turns, tokenizer, counts, name)
        seen.append(images)
    pad_id = getattr(tokenizer, "pad_token_id", None) or 0
    packed = pack_rows(parts, length=length, side=side, pad_id=pad_id)
    text = {key: packed[key] for key in _PACKED}
    if not num_images:
        return text, {}
    images = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
    return text, {"visual_at": packed["visual_at"], **images}


def pad_to_square(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """Centres an image on a square of CLIP's mean colour."""
    height, width = image.shape[:2]
    longest = max(height, width)
    square = np.full((longest, longest, 3), np.multiply(CLIP_MEAN, 255), np.uint8)
    top, left = (longest - height) // 2, (longest - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def _check_row(row: Any, name: str) -> None:
    turns = row.turns if isinstance(row, Conversation) else [row]
    if all(isinstance(turn, Turn) for turn in turns):
        return
    raise InputError(
        f"{name} is no Conversation of Turns: write Conversation([Turn("
        f'"USER: {IMAGE} ..."), Turn(" Yes.", learned=True)], [image]).'
    )


def _as_pixels(image: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(image)  # PIL reads a file's pixels here
    except OSError as error:
        raise InputError(
            f"{name}: an image cannot be read ({error}): fetch its file again, or "
            "leave it out."
        ) from error
    if array.dtype == np.uint16:
        raise InputError(
            f"{name}: an image has 16 bits: take (x // 257).astype('uint8'), three "
            'times where it is grey. PIL\'s convert("RGB") would cut all above 255.'
        )
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            f"{name}: an image is {array.dtype} {array.shape}, and has to be uint8 "
            '[h, w, 3]: take PIL\'s image.convert("RGB"), or (255 * x).astype("uint8") '
            "of values from 0 to 1."
        )
    if 0 in array.shape:
        raise InputError(f"{name}: an image of {array.shape} is empty: leave it out.")
    return array


def _see(
    images: Sequence[np.ndarray],
    processor: Callable[..., Any],
    model: ModelConfig,
    num_images: int,
    name: str,
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Returns each image's number of visual tokens, and the arrays of a row."""
    tile, patch, grids = model.vision.image_size, model.vision.patch_size, model.grids
    options = {"return_tensors": "np", "input_data_format": "channels_last"}
    # One at a time: a batch would be padded to its most tiles.
    tiles = [
        np.asarray(processor([image], **options)["pixel_values"][0]) for image in images
    ]
    sizes = [image.shape[:2] for image in images]
    if not grids:
        tiles = [x[None] if x.ndim == 3 else x for x in tiles]
        counts, per_image = [(tile // patch) ** 2] * len(images), 1
        there = np.arange(num_images * (tile // patch) ** 2) < sum(counts)
        out = {"visual_mask": there}
        wanted = [1] * len(images)
    else:
        cut = AnyresConfig(tile=tile, patch=patch, grids=grids)
        for height, width in sizes:
            # As published, such an image keeps its squashed view alone.
            if any(kept.start >= kept.stop for kept in unpad_box((height, width), cut)):
                raise InputError(
                    f"{name}: an image of {height} x {width} pixels is too narrow: no "
                    "patch of its tiles shows it. Cut it into pieces, or pad it."
                )
        counts = [int(row_index([size], cut)[1].sum()) for size in sizes]
        limit, per_image = num_images * cut.max_tokens, cut.max_tiles
        index, there = row_index(sizes, cut, num_tokens=limit)
        out = {"visual_index": index, "visual_mask": there}
        wanted = [count_tiles(size, cut) for size in sizes]
    for size, image, number in zip(sizes, tiles, wanted, strict=True):
        if len(image) != number:
            raise InputError(
                f"{name}: the image processor cuts {size[0]} x {size[1]} pixels into "
                f"{len(image)} tiles, and this model into {number}: take the image "
                "processor of its folder."
            )
    out["pixels"] = stack_tiles(tiles, num_tiles=num_images * per_image, tile=tile)
    return counts, out


def _read(
    turns: Sequence[Turn], tokenizer: Any, counts: Sequence[int], name: str
) -> list[Part]:
    """Tokenises a row in one go, so that a prompt has the tokens it will have."""
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    if image_id is None or image_id == getattr(tokenizer, "unk_token_id", None):
        raise InputError(
            f"The tokenizer does not know {IMAGE}: take that of the model's folder, or "
            f'add it by add_tokens(["{IMAGE}"], special_tokens=True).'
        )
    text = "".join(turn.text for turn in turns)
    found = tokenizer(text, return_offsets_mapping=True, truncation=False)
    learned = np.repeat([t.learned for t in turns], [len(t.text) for t in turns])
    labels = [
        _is_learned(text, learned, span, name) for span in found["offset_mapping"]
    ]
    return split_at_images(
        found["input_ids"], image_id=image_id, counts=counts, learned=labels, name=name
    )


def _is_learned(
    text: str, learned: np.ndarray, span: tuple[int, int], name: str
) -> bool:
    """Checks whether a token belongs to an answer; spaces go with what follows."""
    start, stop = span
    if start == stop:  # Added by the tokenizer, as the first token is.
        return False
    words = [i for i in range(start, stop) if not text[i].isspace()]
    kinds = {bool(learned[i]) for i in words or [stop - 1]}
    if len(kinds) > 1:
        raise InputError(
            f"{name}: the token {text[start:stop]!r} is partly answer: begin an answer "
            "with a space or a line, or end it with one."
        )
    return kinds.pop()
