"""From words and images to arrays, by a tokenizer and processors of the test's own."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from eegkd.data import Conversation, Turn, prepare_conversations
from eegkd.data.images.anyres import AnyresConfig, image_index
from eegkd.data.language.conversations import pad_to_square
from eegkd.data.language.packing import IGNORED
from eegkd.errors import InputError

GRIDS = ((4, 8), (8, 4), (8, 8))
VISION = SimpleNamespace(image_size=4, patch_size=2)
OLD, NEW = (SimpleNamespace(vision=VISION, grids=grids) for grids in ((), GRIDS))
CUT = AnyresConfig(tile=4, patch=2, grids=GRIDS)
BEGIN, END = 1, "</s>"
RNG = np.random.default_rng(0)
WIDE, TALL = (RNG.integers(0, 256, (*size, 3), np.uint8) for size in ((3, 9), (9, 3)))


class Tokenizer:
    """A word is a token, with the space before it; ids in the order of appearance."""

    pad_token_id = 0

    def __init__(self, *words):
        self.ids = {"<pad>": 0, "<s>": BEGIN, "<image>": 2, END: 3}
        self.ids |= {word: 4 + i for i, word in enumerate(words)}

    def convert_tokens_to_ids(self, token):
        return self.ids.get(token)

    def __call__(self, text, **options):
        assert options == {"return_offsets_mapping": True, "truncation": False}
        found = list(re.finditer(r"\s*(<[^>]+>|[\w:?]+)", text))
        words = [match[1] for match in found]
        ids = [self.ids.setdefault(word, len(self.ids)) for word in words]
        spans = [match.span() for match in found]
        return {"input_ids": [BEGIN, *ids], "offset_mapping": [(0, 0), *spans]}


def square(image, **options):
    """LLaVA-1.5's: one tile, whose corner tells the image."""
    assert image[0].shape[0] == image[0].shape[1]
    tile = np.full((3, 4, 4), 1 + image[0][0, 0, 0], np.float32)
    return {"pixel_values": [tile]}


def cut(image, **options):
    """LLaVA-1.6's: tiles that are their own numbers."""
    num = 1 + max(image_index(image[0].shape[:2], CUT)) // 4
    numbers = np.arange(1.0, num + 1).reshape(-1, 1, 1, 1)
    return {"pixel_values": [np.broadcast_to(numbers, (num, 3, 4, 4))]}


ROWS = {
    "wide": Conversation(
        [Turn("Question: <image>\nis it normal?"), Turn(" yes it is</s>", True)], [WIDE]
    ),
    "both": Conversation(
        [
            Turn("<image> <image> which?"),
            Turn(" second</s>", True),
            Turn(" why?"),
            Turn(" it is</s>", True),
        ],
        [TALL, WIDE],
    ),
    "none": Conversation([Turn("is it?")]),
}


def words_of(tokenizer, ids):
    names = {number: word for word, number in tokenizer.ids.items()}
    return [names[int(number)] for number in ids]


CASES = [(OLD, square), (NEW, cut)]


@pytest.mark.parametrize(("model", "see"), CASES, ids=["1.5", "1.6"])
def test_answers_alone_are_labels_and_images_have_their_places(model, see):
    tokenizer = Tokenizer()
    text, images = prepare_conversations(ROWS, tokenizer, see, model, length=70)
    assert text.keys() == {"ids", "mask", "positions", "labels"}
    learned = [words_of(tokenizer, row[row != IGNORED]) for row in text["labels"]]
    assert learned == [["yes", "it", "is", END], ["second", END, "it", "is", END], []]
    is_word = text["mask"] & (images["visual_at"] < 0)
    spoken = [words_of(tokenizer, text["ids"][i, is_word[i]]) for i in (0, 2)]
    question = ["<s>", "Question:", "is", "it", "normal?"]
    assert spoken == [[*question, "yes", "it", "is", END], ["<s>", "is", "it?"]]
    for i, shown in enumerate([[WIDE], [TALL, WIDE], []]):
        sizes = [image.shape[:2] for image in shown]
        num = sum(4 if model is OLD else len(image_index(s, CUT)) for s in sizes)
        at, there = images["visual_at"][i], images["visual_mask"][i]
        np.testing.assert_array_equal(at[at >= 0], np.arange(num))
        np.testing.assert_array_equal(np.flatnonzero(there), np.arange(num))
    # The second image begins behind all tiles of the first.
    tiles = images["pixels"][1, :, 0, 0, 0]
    if model is OLD:
        np.testing.assert_array_equal(tiles, [123, 123])  # borders in CLIP's colour
        assert images["pixels"].shape == (3, 2, 4, 4, 3)
        assert not images["pixels"][2].any()
    else:
        num = len(image_index(TALL.shape[:2], CUT))
        first = int(images["visual_index"][1, num]) // 4
        assert list(tiles[: first + 1]) == [*range(1, first + 1), 1]
        assert images["visual_index"].shape == (3, 2 * CUT.max_tokens)


def test_text_alone_has_no_images_unless_its_batch_may():
    rows = [ROWS["none"]]
    text, images = prepare_conversations(rows, Tokenizer(), square, OLD, side="left")
    assert images == {}
    np.testing.assert_array_equal(text["mask"], [[True] * 3])
    _, images = prepare_conversations(rows, Tokenizer(), square, OLD, num_images=2)
    assert images["pixels"].shape == (1, 2, 4, 4, 3)
    assert not images["visual_mask"].any()


def test_a_square_keeps_all_of_the_image():
    got = pad_to_square(WIDE)
    assert got.shape == (9, 9, 3)
    np.testing.assert_array_equal(got[3:6], WIDE)
    assert (got[:3] == [122, 116, 104]).all()
    assert (got[6:] == [122, 116, 104]).all()
    np.testing.assert_array_equal(pad_to_square(TALL)[:, 3:6], TALL)


def one(text, *images, answer=" yes"):
    return {"page 3": Conversation([Turn(text), Turn(answer, True)], images)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (one("<image> it?"), "page 3: 1 image placeholders .* for 0 images"),
        (one("it?", WIDE), "page 3: 0 image placeholders .* for 1 images"),
        (one("<image>", WIDE / 255), r"page 3: an image is float64 .*convert\("),
        (one("<image>", WIDE[..., 0]), r"uint8 \(3, 9\), and has to be uint8"),
        (one("<image>", WIDE[:0]), "page 3: .* empty: leave it out"),
        (one("is it", answer="yes"), "page 3: the token ' ityes' is partly answer"),
        (one("it? " * 9), "page 3: 11 tokens .* limit is 9: shorten the text"),
        ([], "there are no rows"),
        (["is it?"], r"row 0 is no Conversation of Turns: write Conversation\("),
        ([Conversation("is it?")], "row 0 is no Conversation of Turns"),
        ([Conversation(["is it?"])], "row 0 is no Conversation of Turns"),
    ],
)
def test_what_would_be_lost_is_refused(rows, message):
    with pytest.raises(InputError, match=message):
        prepare_conversations(rows, Tokenizer(), square, OLD, length=9)


def test_parts_of_another_model_are_refused():
    rows = one("<image>", WIDE)
    other = lambda image, **options: {"pixel_values": np.ones((1, 1, 3, 4, 4))}
    with pytest.raises(InputError, match="into 3 tiles, and this model into 1: take"):
        prepare_conversations(rows, Tokenizer(), cut, OLD, aspect="crop")
    with pytest.raises(InputError, match="into 1 tiles, and this model into 3: take"):
        prepare_conversations(rows, Tokenizer(), other, NEW)
    tokenizer = Tokenizer()
    del tokenizer.ids["<image>"]
    with pytest.raises(InputError, match="does not know <image>: .*add_tokens"):
        prepare_conversations(rows, tokenizer, square, OLD)
    with pytest.raises(InputError, match="2 images, more than num_images=1: raise"):
        prepare_conversations(ROWS, Tokenizer(), square, OLD, num_images=1)


def png_of(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("image", "cure"),
    [
        (Image.open(io.BytesIO(png_of(WIDE)[:-40])), "grey: .* cannot be read"),
        (Image.open(io.BytesIO(png_of(np.ones((3, 9), np.uint16)))), "x // 257"),
        (Image.open(io.BytesIO(png_of(WIDE))).convert("P"), r'convert\("RGB"\)'),
    ],
    ids=["cut short", "16 bits", "palette"],
)
def test_images_of_other_files_are_refused_with_a_cure(image, cure):
    row = Conversation([Turn("<image> normal?")], [image])
    with pytest.raises(InputError, match=cure):
        prepare_conversations({"grey": row}, Tokenizer(), square, OLD)


@pytest.mark.parametrize("shape", [(1, 90, 3), (90, 1, 3)])
def test_an_image_that_no_tile_shows_is_refused(shape):
    strip = Conversation([Turn("<image> normal?")], [np.zeros(shape, np.uint8)])
    with pytest.raises(InputError, match="strip: .* too narrow: .* pieces, or pad"):
        prepare_conversations({"strip": strip}, Tokenizer(), cut, NEW)
    # LLaVA-1.5 sees a square with borders.
    prepare_conversations({"strip": strip}, Tokenizer(), square, OLD)
