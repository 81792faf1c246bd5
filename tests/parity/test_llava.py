"""LLaVA 1.5 and 1.6 against transformers, at random perturbed weights."""

import dataclasses

import jax
import numpy as np
import pytest

from eegkd.data.images.anyres import AnyresConfig, count_tiles, row_index, stack_tiles
from eegkd.data.language.packing import pack_rows, split_at_images
from eegkd.models import Decoding, Llava, generate_text, load_pretrained
from tests.support import vlm_models
from tests.support.vlm_models import (
    GRIDS,
    IMAGE,
    IMAGE_ID,
    PATCH,
    relative_error,
    torch,
)

pytestmark = pytest.mark.parity

RNG = np.random.default_rng(0)
STOP = 2
NAMES = ("embed", "block_0", "block_1", "tokens")
# Wide, tiny, tall, square; rows with two images, one and none.
SIZES = [[(20, 200), (4, 5)], [(200, 20)], [(70, 70)], []]
ANYRES = AnyresConfig(tile=IMAGE, patch=PATCH, grids=tuple(map(tuple, GRIDS)))
TEXTS = [
    [5, 6, IMAGE_ID, 7, IMAGE_ID, 8, 9],
    [IMAGE_ID, 10, 11, 12],
    [13, IMAGE_ID, 14],
    [15, 16, 17, 18, 19],
]


def tiles_of(sizes):
    """Images as transformers' processor cuts them, without what a batch pads."""
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": IMAGE},
        crop_size={"height": IMAGE, "width": IMAGE},
        image_grid_pinpoints=GRIDS,
    )
    images = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    out = processor(images, return_tensors="np", input_data_format="channels_last")
    real = [
        pixels[: count_tiles(size, ANYRES)]
        for pixels, size in zip(out["pixel_values"], sizes, strict=True)
    ]
    return out, real


def case_15():
    """Plain images, one tile each, of four patches."""
    model = vlm_models.llava_15()
    images = [RNG.normal(size=(len(row), 1, 3, IMAGE, IMAGE)) for row in SIZES]
    flat = np.concatenate([image[:, 0] for image in images]).astype(np.float32)
    counts = [[4] * len(row) for row in SIZES]
    ours = {"pixels": [stack_tiles(row, num_tiles=2, tile=IMAGE) for row in images]}
    ours["visual_mask"] = [np.arange(8) < sum(row) for row in counts]
    return model, {"pixel_values": flat}, counts, ours


def case_16():
    """Tiles of images of several sizes."""
    model = vlm_models.llava_16()
    sizes = [size for row in SIZES for size in row]
    processed, tiles = tiles_of(sizes)
    indices, counts, pixels = [], [], []
    for row in SIZES:
        indices.append(row_index(row, ANYRES, num_tokens=2 * ANYRES.max_tokens))
        counts.append([int(row_index([size], ANYRES)[1].sum()) for size in row])
        here, tiles = tiles[: len(row)], tiles[len(row) :]
        pixels.append(stack_tiles(here, num_tiles=10, tile=IMAGE))
    ours = {"pixels": pixels}
    ours["visual_index"], ours["visual_mask"] = zip(*indices, strict=True)
    theirs = {
        "pixel_values": np.float32(processed["pixel_values"]),
        "image_sizes": np.array(sizes),
    }
    return model, theirs, counts, ours


@pytest.fixture(scope="module", params=[case_15, case_16], ids=["1.5", "1.6"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    model, theirs, counts, ours = request.param()
    model.save_pretrained(folder)
    module, variables = load_pretrained("llava", folder)
    language = dataclasses.replace(module.cfg.language, layers_out=(0, 1))
    module = Llava(dataclasses.replace(module.cfg, language=language))
    theirs = {name: torch.tensor(value) for name, value in theirs.items()}
    ours = {name: np.stack(value) for name, value in ours.items()}
    return model, theirs, counts, module, variables["params"], ours


def pack(counts, side):
    rows = [
        split_at_images(text, image_id=IMAGE_ID, counts=count)
        for text, count in zip(TEXTS, counts, strict=True)
    ]
    packed = pack_rows(rows, side=side)
    packed.pop("labels")
    ids = np.where(packed["visual_at"] >= 0, IMAGE_ID, packed["ids"])
    inputs = {"input_ids": ids, "attention_mask": packed["mask"].astype(np.int64)}
    return packed, {name: torch.tensor(value) for name, value in inputs.items()}


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_layer_and_logits_agree(pair, side):
    model, theirs, counts, module, params, ours = pair
    packed, inputs = pack(counts, side)
    with torch.no_grad():
        want = model(**inputs, **theirs, output_hidden_states=True)
    with jax.default_matmul_precision("float32"):
        got = jax.jit(module.apply)({"params": params}, **packed, **ours)
    mask = packed["mask"]
    for name, hidden in zip(NAMES, want.hidden_states, strict=True):
        assert relative_error(got[name], hidden, mask) < 1e-5, name
    assert relative_error(got["logits"], want.logits, mask) < 1e-5
    # All visual tokens, in the order of rows.
    visual = np.asarray(got["visual"])[ours["visual_mask"]]
    images = want.image_outputs.pooler_output
    projected = torch.cat([x.reshape(-1, visual.shape[-1]) for x in images])
    assert relative_error(visual, projected) < 1e-5
    np.testing.assert_array_equal(
        got["visual_mask"].sum(axis=1), [sum(row) for row in counts]
    )


def test_the_towers_layers_agree(pair):
    model, _, _, module, params, ours = pair
    pixels = ours["pixels"].reshape(-1, IMAGE, IMAGE, 3).transpose(0, 3, 1, 2)
    with torch.no_grad():
        want = model.model.vision_tower(
            torch.tensor(pixels), output_hidden_states=True
        ).hidden_states
    see = jax.jit(lambda params, x: module.apply({"params": params}, x, method="see"))
    with jax.default_matmul_precision("float32"):
        got = see(params, ours["pixels"])
    assert module.cfg.block == "block_1"
    for name, number in (("vision_embed", 0), ("vision_block_1", -2)):
        flat = np.asarray(got[name]).reshape(want[number].shape)
        assert relative_error(flat, want[number]) < 1e-5, name


def test_greedy_tokens_are_equal(pair):
    model, theirs, counts, module, params, ours = pair
    packed, inputs = pack(counts, "left")
    num = 8
    with torch.no_grad():
        want = model.generate(
            **inputs, **theirs, max_new_tokens=num, do_sample=False, eos_token_id=STOP
        )
    new = want[:, inputs["input_ids"].shape[1] :].numpy()
    with jax.default_matmul_precision("float32"):
        got = generate_text(
            module,
            params,
            packed["ids"],
            packed["mask"],
            inputs=ours | {"visual_at": packed["visual_at"]},
            decoding=Decoding(max_new_tokens=num, stop_ids=(STOP,)),
        )
    tokens = np.asarray(got.tokens)
    np.testing.assert_array_equal(tokens[:, : new.shape[1]], new)
    assert not tokens[:, new.shape[1] :].any()
    assert len({tuple(row) for row in tokens}) > 1
