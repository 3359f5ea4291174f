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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tiles import TILE, TileArray

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
