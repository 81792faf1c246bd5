"""Tiles and their order against transformers, for images of any size."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eegkd.data.images.anyres import (
    AnyresConfig,
    choose_grid,
    count_tiles,
    count_tokens,
    image_index,
)

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

FULL = AnyresConfig()
SMALL = AnyresConfig(
    tile=28, patch=14, grids=((28, 56), (56, 28), (56, 56), (84, 28), (28, 84))
)
sides = st.integers(1, 5000) | st.sampled_from([336, 672, 1008])


@settings(max_examples=500)
@given(st.tuples(sides, sides))
@example((1700, 2200))
@example((352, 836))
@example((1, 5000))
def test_grids_and_numbers_of_tokens(size):
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next import (
        modeling_llava_next,
        processing_llava_next,
    )

    grids = [list(grid) for grid in FULL.grids]
    best = select_best_resolution(size, grids)
    assert choose_grid(size, FULL) == tuple(best)
    tiles = modeling_llava_next.image_size_to_num_patches(size, grids, 336)
    assert count_tiles(size, FULL) == tiles
    # The processor's own count, which needs nothing of the processor.
    count = processing_llava_next.LlavaNextProcessor._get_unpadded_features
    unpadded, newlines = count(None, *size, 24, 24, best[0] // 336, best[1] // 336)
    assert count_tokens(size, FULL) == 576 + unpadded + newlines


@settings(max_examples=100)
@given(st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_the_order_of_patches(size):
    from transformers import LlavaNextConfig
    from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

    class Holder:
        config = LlavaNextConfig(
            vision_config={
                "model_type": "clip_vision_model",
                "image_size": 28,
                "patch_size": 14,
            },
            image_grid_pinpoints=[list(grid) for grid in SMALL.grids],
        )

    # Patches that are their own numbers, and a newline that is ours.
    number = count_tiles(size, SMALL) * SMALL.patches
    features = torch.arange(number).float().reshape(-1, SMALL.patches, 1)
    packed, lengths = LlavaNextModel.pack_image_features(
        Holder(), [features], [size], "default", image_newline=torch.tensor([-1.0])
    )
    index = image_index(size, SMALL)
    np.testing.assert_array_equal(index, packed[0].flatten().numpy())
    assert int(lengths[0]) == len(index)


def test_the_image_processor_makes_as_many_tiles():
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=[list(grid) for grid in SMALL.grids],
    )
    rng = np.random.default_rng(0)
    for size in ((40, 90), (90, 40), (70, 70), (3, 5), (20, 200), (200, 20)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        out = processor([image], return_tensors="np", input_data_format="channels_last")
        assert out["pixel_values"].shape[1] == count_tiles(size, SMALL)
        assert tuple(out["image_sizes"][0]) == size
