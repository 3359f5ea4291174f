"""How the tiles of a compressed pack are stored: as differences, deflated by HDF5's own filter.

Deflate finds repeated bytes, and photographs hardly repeat any; differences of neighbours do, which
is why a PNG is smaller than the same pixels deflated. A PNG chooses among five differences row by
row; here they are always the same two, which NumPy undoes for many pixels at once:

1. red and blue less green, at every pixel;
2. every row of a tile less the row above it; the first row stays.

All of it modulo 256. To read a tile with any other HDF5 library:

    tile = numpy.add.accumulate(file["tiles"][n], axis=0, dtype=numpy.uint8)
    tile[..., 0] += tile[..., 1]
    tile[..., 2] += tile[..., 1]
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

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

    The arguments are those of `join_tiles`, but for ``tiles``: all those of the picture,
    (rows * columns, TILE, TILE, 3). The result is not necessarily contiguous, but the caller's own.
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


STORED_AS = "green-up"
"""Root attribute ``stored_as`` of a compressed pack; a plain one has ``"pixels"``."""

PLAIN = "pixels"
"""Root attribute ``stored_as`` of a pack without compression."""

LEVEL = 4
"""Deflate level; higher ones gain one percent and take far longer."""


def deflate_tiles(tiles: TileArray) -> list[bytes]:
    """Each tile's differences as a zlib stream, which is what HDF5's deflate filter stores.

    Args:
        tiles: (N, TILE, TILE, 3) uint8; not changed.
    """
    changed = tiles.copy()
    changed[..., 0] -= tiles[..., 1]
    changed[..., 2] -= tiles[..., 1]
    changed[:, 1:] -= changed[:, :-1].copy()
    return [_deflate(tile) for tile in changed]


def _deflate(tile: NDArray[np.uint8]) -> bytes:
    # Small differences rarely repeat as strings: this strategy leaves them to Huffman's code.
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
    return packer.compress(tile.tobytes()) + packer.flush()


def inflate_rows(deflated: Any, rows: int) -> NDArray[np.uint8]:
    """The first rows of a tile; red and blue still less green, see `add_green`.

    Args:
        deflated: the tile's zlib stream, bytes or a view of some.
        rows: how many are wanted, 1 to TILE; those below are not inflated.

    Returns:
        (rows, TILE, 3) uint8.

    Raises:
        ValueError: the stream is damaged or too short.
    """
    wanted = rows * TILE * 3
    try:
        if rows == TILE:
            content = zlib.decompress(deflated)
        else:
            # The rows below the crop are not worth inflating: a sixth of the work, on average.
            content = zlib.decompressobj().decompress(deflated, wanted)
    except zlib.error as problem:
        raise ValueError(str(problem)) from problem
    if len(content) != wanted:
        raise ValueError(f"{len(content)} bytes instead of {wanted}")
    changes = np.frombuffer(content, np.uint8).reshape(rows, TILE * 3)
    return np.add.accumulate(changes, axis=0, dtype=np.uint8).reshape(rows, TILE, 3)


def add_green(image: NDArray[np.uint8]) -> None:
    """Give red and blue their green back, in place, for (..., 3) uint8.

    Both differences are sums modulo 256, so they may be undone in either order: this one once a
    crop, and not once a tile.
    """
    image[..., 0] += image[..., 1]
    image[..., 2] += image[..., 1]
