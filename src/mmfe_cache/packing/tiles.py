"""Pictures as rows of square tiles, so that a crop reads its tiles and not a whole picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.samples import ImageArray

TILE = 64
"""Side of a tile in pixels: a 128-pixel crop touches nine of them."""

TILE_BYTES = TILE * TILE * 3
"""Bytes of an uncompressed tile."""

TileArray = NDArray[np.uint8]
"""(N, TILE, TILE, 3) uint8."""


def grid(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of tiles that cover a picture."""
    return -(-height // TILE), -(-width // TILE)


def num_tiles(height: int, width: int) -> int:
    """How many tiles cover a picture."""
    rows, columns = grid(height, width)
    return rows * columns


def split_tiles(image: ImageArray) -> TileArray:
    """Cut (H, W, 3) into tiles, row by row; the last of each axis repeat the border."""
    height, width = image.shape[:2]
    rows, columns = grid(height, width)
    pad = ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0))
    padded = np.pad(image, pad, mode="edge")
    return np.ascontiguousarray(
        padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    ).reshape(-1, TILE, TILE, 3)


def join_tiles(
    tile: Callable[[int, int], NDArray[np.uint8]],
    size: tuple[int, int],
    top: int,
    left: int,
    height: int,
    width: int,
) -> ImageArray:
    """Put a window together from the tiles that it touches.

    Args:
        tile: gives the first k rows of the n-th tile of the picture, (k, TILE, 3) or more.
        size: (H, W) of the picture.
        top: first row of the window, which must lie inside.
        left: its first column.
        height: its rows.
        width: its columns.

    Returns:
        (height, width, 3) uint8.
    """
    columns = grid(*size)[1]
    out = np.empty((height, width, 3), np.uint8)
    for row, out_rows, tile_rows in _spans(top, height):
        for column, out_columns, tile_columns in _spans(left, width):
            content = tile(row * columns + column, tile_rows.stop)
            out[out_rows, out_columns] = content[tile_rows, tile_columns]
    return out


def cut_tiles(
    tiles: NDArray[np.uint8],
    size: tuple[int, int],
    top: int,
    left: int,
    height: int,
    width: int,
) -> ImageArray:
    """`join_tiles` for tiles that lie one after another in memory: one copy of those touched.

    Args:
        tiles: (rows * columns, TILE, TILE, 3), all tiles of the picture.
        size: (H, W) of the picture.
        top: first row of the window, which must lie inside.
        left: its first column.
        height: its rows.
        width: its columns.

    Returns:
        (height, width, 3) uint8, not necessarily contiguous, the caller's own.
    """
    rows, columns = grid(*size)
    first_row, first_column = top // TILE, left // TILE
    last_row, last_column = -(-(top + height) // TILE), -(-(left + width) // TILE)
    touched = tiles.reshape(rows, columns, TILE, TILE, 3)[
        first_row:last_row, first_column:last_column
    ]
    block = np.empty(
        (last_row - first_row, TILE, last_column - first_column, TILE, 3), dtype=np.uint8
    )
    block[...] = touched.swapaxes(1, 2)
    whole = block.reshape((last_row - first_row) * TILE, (last_column - first_column) * TILE, 3)
    top, left = top - first_row * TILE, left - first_column * TILE
    return whole[top : top + height, left : left + width]


def _spans(start: int, length: int) -> Iterator[tuple[int, slice, slice]]:
    """Tile index, where in the window and where in the tile, along one axis."""
    end = start + length
    for index in range(start // TILE, -(-end // TILE)):
        first, last = max(start, index * TILE), min(end, (index + 1) * TILE)
        yield (
            index,
            slice(first - start, last - start),
            slice(first - index * TILE, last - index * TILE),
        )
