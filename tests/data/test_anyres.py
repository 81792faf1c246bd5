from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegkd.data.images.anyres import (
    NEWLINE,
    AnyresConfig,
    choose_grid,
    count_tiles,
    count_tokens,
    image_index,
    row_index,
    stack_tiles,
    unpad_box,
)
from eegkd.errors import InputError

LARGE = AnyresConfig()
SMALL = AnyresConfig(tile=6, patch=2, grids=((6, 12), (12, 6), (12, 12), (18, 6)))
SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def test_a_page_of_an_electrocardiogram():
    page = (1700, 2200)
    assert choose_grid(page, LARGE) == (672, 672)
    rows, columns = unpad_box(page, LARGE)
    assert (rows, columns) == (slice(5, 43), slice(0, 48))
    assert count_tokens(page, LARGE) == 576 + 38 * (48 + 1) == 2438
    assert count_tiles(page, LARGE) == LARGE.max_tiles == 5
    assert len(image_index(page, LARGE)) == 2438
    assert LARGE.max_tokens == 576 + 48 * 49


def test_a_product_that_a_float_misses_by_a_hair():
    # 836 * 24 / 352 is 57, and in floats a little less: 7 columns go, not 8.
    assert choose_grid((352, 836), LARGE) == (336, 1008)
    assert unpad_box((352, 836), LARGE)[1] == slice(7, 65)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((336, 336), (336, 672)),  # Equal in all: the least area, then the first.
        ((600, 600), (672, 672)),
        ((300, 1200), (336, 1008)),
        ((1200, 300), (1008, 336)),
        ((200, 500), (336, 672)),
        ((1, 1), (336, 672)),
        ((1, 4000), (336, 672)),  # No grid keeps a whole row of it.
    ],
)
def test_grids(size, grid):
    assert choose_grid(size, LARGE) == grid


@given(SIZES)
def test_the_grid_keeps_most_and_then_wastes_least(size):
    def kept(grid):
        scale = min(Fraction(grid[0], size[0]), Fraction(grid[1], size[1]))
        return min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])

    best = choose_grid(size, LARGE)
    for grid in LARGE.grids:
        # A float may lose one row or column of pixels where a fraction keeps it.
        slack = 2 * max(grid)
        assert kept(best) >= kept(grid) - slack
        if kept(best) == kept(grid) == size[0] * size[1]:
            assert np.prod(best) <= np.prod(grid)


@given(SIZES)
def test_the_index_is_a_picture_cut_and_read_by_hand(size):
    height, width = choose_grid(size, SMALL)
    across, side, patches = width // 6, 3, 9
    picture = np.zeros((height // 2, width // 2), int)
    for tile in range(height // 6 * across):
        y, x = tile // across * side, tile % across * side
        here = (tile + 1) * patches + np.arange(patches).reshape(side, side)
        picture[y : y + side, x : x + side] = here
    rows, columns = picture.shape
    # As transformers' unpad_image.
    if size[1] / size[0] > columns / rows:
        drop = (rows - int(round(size[0] * (columns / size[1]), 7))) // 2
        picture = picture[drop : rows - drop]
    else:
        drop = (columns - int(round(size[1] * (rows / size[0]), 7))) // 2
        picture = picture[:, drop : columns - drop]
    want = list(range(patches))
    for line in picture:
        want += [*line, NEWLINE]
    index = image_index(size, SMALL)
    np.testing.assert_array_equal(index, want)
    assert count_tokens(size, SMALL) == len(want)
    assert index.max() < count_tiles(size, SMALL) * patches
    moved = image_index(size, SMALL, first_tile=7)
    np.testing.assert_array_equal(moved[index >= 0], index[index >= 0] + 7 * patches)


def test_images_of_a_row_follow_each_other_and_are_padded():
    sizes = [(5, 30), (40, 41)]
    index, mask = row_index(sizes, SMALL)
    assert len(index) == 2 * SMALL.max_tokens
    first = count_tokens(sizes[0], SMALL)
    second = image_index(sizes[1], SMALL, first_tile=count_tiles(sizes[0], SMALL))
    np.testing.assert_array_equal(index[first:][: len(second)], second)
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < first + len(second))
    assert not index[~mask].any()
    assert [len(part) for part in row_index([], SMALL, num_tokens=4)] == [4, 4]
    with pytest.raises(InputError, match=r"5 x 30, 40 x 41 pixels give \d+ visual"):
        row_index(sizes, SMALL, num_tokens=first)


def test_tiles_are_stacked_channels_last():
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(count, 3, 6, 6)) for count in (3, 2)]
    tiles = stack_tiles(images, num_tiles=7, tile=6)
    assert tiles.shape == (7, 6, 6, 3)
    assert tiles.dtype == np.float32
    np.testing.assert_array_equal(tiles[4, :, :, 1], np.float32(images[1][1, 1]))
    assert not tiles[5:].any()
    padded = [np.concatenate([image, np.zeros((3, 3, 6, 6))]) for image in images]
    np.testing.assert_array_equal(stack_tiles(padded, num_tiles=7, tile=6), tiles)
    assert not stack_tiles([], num_tiles=2, tile=6).any()
    with pytest.raises(InputError, match="5 tiles or more, and 4"):
        stack_tiles(images, num_tiles=4, tile=6)
    with pytest.raises(InputError, match="Image 0 of a row"):
        stack_tiles(images, num_tiles=7)


def test_impossible_sizes_are_refused():
    with pytest.raises(InputError, match="0 x 5 pixels"):
        choose_grid((0, 5), LARGE)
    with pytest.raises(ValueError, match="whole tiles of 6"):
        AnyresConfig(tile=6, patch=2, grids=((6, 10),))
    with pytest.raises(ValueError, match="patch=4"):
        AnyresConfig(tile=6, patch=4)
