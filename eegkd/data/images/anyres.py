"""Geometry of LLaVA-1.6: how an image of any size becomes tiles and visual tokens.

An image is resized into the grid of tiles that shows most of it, padded to that grid
and cut; each tile, and before them one squashed view of all of it, goes through the
vision tower by itself. Of the grid's tokens those that lie wholly in the padding are
dropped, and every row that is left ends with a newline vector.

All that depends on an image's size happens here, in NumPy: a model gets the result as
an index into the patches of all tiles of a row, padded to one length, so that images of
different grids share one compiled program. Sizes are (height, width) in pixels.

References:
    Liu et al. 2024, "LLaVA-NeXT"; transformers' image_processing_llava_next decides
    where rounding does.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32

from eegkd.errors import InputError

Size = tuple[int, int]

NEWLINE = -1
"""In an index of visual tokens: the newline vector instead of a patch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyresConfig:
    """Tiles, and the grids that an image may be cut into.

    Attributes:
        tile: Side of a tile, the vision tower's image size.
        patch: Side of a patch.
        grids: Sizes in pixels, multiples of the tile; among equals the first is taken.
    """

    tile: int = 336
    patch: int = 14
    grids: tuple[Size, ...] = (
        (336, 672),
        (672, 336),
        (672, 672),
        (1008, 336),
        (336, 1008),
    )

    def __post_init__(self) -> None:
        """Checks that patches fill tiles, and tiles grids."""
        if self.tile < 1 or self.patch < 1 or self.tile % self.patch:
            raise ValueError(f"tile={self.tile} is no multiple of patch={self.patch}.")
        wrong = [g for g in self.grids if min(g) < 1 or any(x % self.tile for x in g)]
        if wrong or not self.grids:
            raise ValueError(
                f"Need grids of whole tiles of {self.tile} pixels; got {self.grids}."
            )

    @property
    def side(self) -> int:
        """Patches along a side of a tile."""
        return self.tile // self.patch

    @property
    def patches(self) -> int:
        """Patches of a tile."""
        return self.side**2

    @property
    def max_tiles(self) -> int:
        """Most tiles that an image can have, the global view among them."""
        return 1 + max(h * w for h, w in self.grids) // self.tile**2

    @property
    def max_tokens(self) -> int:
        """Most visual tokens that an image can have."""
        grids = [(h // self.patch, w // self.patch) for h, w in self.grids]
        return self.patches + max(h * (w + 1) for h, w in grids)


def choose_grid(size: Size, config: AnyresConfig) -> Size:
    """Chooses the grid that keeps most of the image's pixels, then wastes least.

    The effective resolution is that of the image scaled into the grid, and never more
    than it had.

    Returns:
        Size of the grid in pixels.

    Raises:
        InputError: If the image is empty.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InputError(
            f"An image of {height} x {width} pixels has no content: leave it out."
        )

    def merit(grid: Size) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        return effective, effective - grid[0] * grid[1]

    return max(config.grids, key=merit)


def count_tiles(size: Size, config: AnyresConfig) -> int:
    """Counts an image's tiles, the global view among them."""
    height, width = choose_grid(size, config)
    return 1 + height * width // config.tile**2


def unpad_box(size: Size, config: AnyresConfig) -> tuple[slice, slice]:
    """Finds the rows and columns of the grid's patches that show the image.

    Padding is taken off in equal numbers at both sides: of an odd number of padded rows
    one stays.
    """
    (height, width), grid = size, choose_grid(size, config)
    rows, columns = (x // config.patch for x in grid)

    def keep(num: int, new: float) -> slice:
        # Rounded first: 37 may have come out as 36.999999999999993.
        drop = (num - int(round(new, 7))) // 2
        return slice(drop, num - drop)

    if width / height > columns / rows:
        return keep(rows, height * (columns / width)), slice(0, columns)
    return slice(0, rows), keep(columns, width * (rows / height))


def count_tokens(size: Size, config: AnyresConfig) -> int:
    """Counts an image's visual tokens: the global view's, the grid's and newlines."""
    rows, columns = (part.stop - part.start for part in unpad_box(size, config))
    return config.patches + rows * (columns + 1)


def image_index(
    size: Size, config: AnyresConfig, *, first_tile: int = 0
) -> Int32[np.ndarray, " v"]:
    """Lists an image's visual tokens as patches of its tiles.

    Args:
        size: Size of the image.
        config: The grids.
        first_tile: Number of the image's global view; the grid's tiles follow it, row
            by row.

    Returns:
        `tile * patches + patch` in the order of the sequence, global view first;
        `NEWLINE` at the end of each row of the grid.
    """
    side, columns = config.side, choose_grid(size, config)[1] // config.tile
    kept_rows, kept_columns = unpad_box(size, config)
    y = np.arange(kept_rows.start, kept_rows.stop)[:, None]
    x = np.arange(kept_columns.start, kept_columns.stop)[None]
    tile = first_tile + 1 + y // side * columns + x // side
    patch = y % side * side + x % side
    lines = np.pad(
        tile * config.patches + patch, ((0, 0), (0, 1)), constant_values=NEWLINE
    )
    whole = first_tile * config.patches + np.arange(config.patches)
    return np.concatenate([whole, lines.ravel()]).astype(np.int32)


def row_index(
    sizes: Sequence[Size], config: AnyresConfig, *, num_tokens: int | None = None
) -> tuple[Int32[np.ndarray, " v"], Bool[np.ndarray, " v"]]:
    """Lists the visual tokens of all images of one row, padded to one length.

    Args:
        sizes: Sizes of the row's images, in the order of its tiles.
        config: The grids.
        num_tokens: The length; None is the most that so many images can have, so that
            all rows with as many images agree.

    Returns:
        The index, and where it holds a token.

    Raises:
        InputError: If there are more tokens than the length.
    """
    parts, first = [np.zeros(0, np.int32)], 0
    for size in sizes:
        parts.append(image_index(size, config, first_tile=first))
        first += count_tiles(size, config)
    index = np.concatenate(parts)
    limit = len(sizes) * config.max_tokens if num_tokens is None else num_tokens
    if len(index) > limit:
        raise InputError(
            f"Images of {', '.join(f'{h} x {w}' for h, w in sizes)} pixels give "
            f"{len(index)} visual tokens, more than {limit}: raise the limit, or give "
            "fewer images a row."
        )
    padded = np.pad(index, (0, limit - len(index)))
    return padded, np.arange(limit) < len(index)


def stack_tiles(
    images: Sequence[np.ndarray], *, num_tiles: int, tile: int = 336
) -> Float32[np.ndarray, "p s s 3"]:
    """Joins the tiles of a row's images as the vision tower takes them.

    Args:
        images: What an image processor of transformers returns, `[tiles, 3, s, s]` per
            image. Tiles of zeros at its end, which the processor pads a batch with, are
            dropped: no image comes out as zeros. A row of text alone has none.
        num_tiles: Tiles to pad to, with zeros; the same for all rows of a batch.
        tile: Side of a tile.

    Raises:
        InputError: If there are more tiles, or a tile has another size.
    """
    out = np.zeros((num_tiles, tile, tile, 3), np.float32)
    first = 0
    for i, image in enumerate(images):
        if image.shape[1:] != (3, tile, tile):
            raise InputError(
                f"Image {i} of a row is {image.shape}, and need be [tiles, 3, {tile}, "
                f"{tile}]: take the image processor of this model's folder."
            )
        shown = np.flatnonzero(np.any(image, axis=(1, 2, 3)))
        image = image[: shown.max(initial=-1) + 1]
        stop = first + len(image)
        if stop > num_tiles:
            raise InputError(
                f"Images of a row have {stop} tiles or more, and {num_tiles} is the "
                "limit: raise it, or give fewer images a row."
            )
        out[first:stop] = image.transpose(0, 2, 3, 1)
        first = stop
    return out
