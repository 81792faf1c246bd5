"""Conversations against transformers' processors of LLaVA 1.5 and 1.6."""

from types import SimpleNamespace

import numpy as np
import pytest

from eegkd.data import Conversation, Turn, prepare_conversations
from tests.support.vlm_models import (
    GRIDS,
    IMAGE,
    PATCH,
    make_tokenizer,
    transformers,
)

pytestmark = pytest.mark.parity

VISION = SimpleNamespace(image_size=IMAGE, patch_size=PATCH)
SIZES = {
    "size": {"shortest_edge": IMAGE},
    "crop_size": {"height": IMAGE, "width": IMAGE},
}
TEXT = "A page: <image>\nand <image> another. Is it normal?"
ANSWER = " It is, quite.</s>"
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 90), (70, 31))]


def parts_of(name, tokenizer, **options):
    """Image processor, and the whole processor around it."""
    import importlib

    home = f"transformers.models.{name}"
    module = importlib.import_module(f"{home}.image_processing_pil_{name}")
    prefix = "LlavaNext" if name == "llava_next" else "Llava"
    see = getattr(module, f"{prefix}ImageProcessorPil")(**SIZES, **options)
    whole = getattr(transformers, f"{prefix}Processor")(
        image_processor=see,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return see, whole


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", ["crop", "pad", "1.6"])
def test_a_batch_is_what_the_processor_makes(case, side):
    tokenizer = make_tokenizer(TEXT + ANSWER)
    tokenizer.padding_side = side
    grids, options, name = (), {"do_pad": case == "pad"}, "llava"
    if case == "1.6":
        grids, name = tuple(map(tuple, GRIDS)), "llava_next"
        options = {"image_grid_pinpoints": GRIDS}
    see, whole = parts_of(name, tokenizer, **options)
    rows = [
        Conversation([Turn(TEXT), Turn(ANSWER, learned=True)], IMAGES),
        Conversation([Turn("See <image>?")], IMAGES[:1]),
    ]
    texts = ["".join(turn.text for turn in row.turns) for row in rows]
    shown = [list(row.images) for row in rows]
    want = whole(images=shown, text=texts, padding=True, return_tensors="np")
    aspect = "crop" if case == "crop" else "pad"
    see = see if case != "pad" else parts_of(name, tokenizer)[0]
    model = SimpleNamespace(vision=VISION, grids=grids)
    text, images = prepare_conversations(
        rows, tokenizer, see, model, side=side, aspect=aspect
    )
    np.testing.assert_array_equal(text["mask"], want["attention_mask"])
    is_image = want["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")
    np.testing.assert_array_equal(images["visual_at"] >= 0, is_image)
    np.testing.assert_array_equal(
        np.where(is_image, 0, text["ids"]), np.where(is_image, 0, want["input_ids"])
    )
    assert tokenizer.decode(text["ids"][0, text["labels"][0] >= 0]) == ANSWER
    assert (text["labels"][1] < 0).all()
    theirs = [x if x.ndim == 4 else x[None] for x in want["pixel_values"]]
    tiles = np.concatenate([x[np.any(x, axis=(1, 2, 3))] for x in theirs])
    ours = images["pixels"][np.any(images["pixels"], axis=(2, 3, 4))]
    np.testing.assert_allclose(ours, tiles.transpose(0, 2, 3, 1), rtol=1e-6)
