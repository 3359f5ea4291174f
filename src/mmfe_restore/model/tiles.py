"""Restoring an image in overlapping tiles, where even strips do not fit into memory.

Attention sees each tile by itself, so that neighbours may take on other tones: docs/restore.md.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from mmfe_cache.errors import UsageError
from mmfe_restore.model.pages import give_back_free
from mmfe_restore.model.parts import unit

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_restore.model.restorer import Restorer
    from mmfe_restore.model.runners import Watch

OVERLAP = 32
"""Pixels that neighbouring tiles share at least, over which one tile's tones pass into the next
one's. The smallest maps see further beyond an edge."""

TOGETHER = 1 << 30
"""Bytes of the maps of all tiles that a CPU's threads restore at a time."""

_MAPS = 8
"""What a tile needs, in float32 maps of the network's width: 67 MB were seen for 0.14 megapixels
of a width of 16."""


Tile = Literal["auto", "off"] | int
"""``auto`` and ``off`` restore the whole image at once; a number is the longest side of a tile."""

LEAST_TILE = 64
"""Pixels."""


def needed_tile(tile: Tile, height: int, width: int) -> int | None:
    """The longest side of a tile, or None for an image of this size that is restored whole.

    Raises:
        UsageError: no such choice.
    """
    if tile == "auto" or tile == "off":
        return None
    if isinstance(tile, str) or tile < LEAST_TILE:  # pyright: ignore[reportUnnecessaryIsInstance]
        expected = f"auto, off, or at least {LEAST_TILE} pixels"
        raise UsageError("unknown tile", got=tile, expected=expected)
    return tile if max(height, width) > tile else None


def restore_tiles(
    restorer: Restorer,
    image: Tensor,
    embeddings: Embeddings | None,
    *,
    tile: int,
    overlap: int = OVERLAP,
    watch: Watch | None = None,
) -> Tensor:
    """Restore images tile by tile, with linear blending where tiles overlap.

    Args:
        restorer: the network.
        image: (B, 3, H, W), of a floating type in [0, 1] or uint8.
        embeddings: of the whole images; every tile uses them.
        tile: the longest side of a tile in pixels.
        overlap: of neighbouring tiles in pixels, at least; at most half a tile is used.
        watch: is told the share of the tiles that are done, from 0 to 1.

    Returns:
        (B, 3, H, W) float32, not clamped.
    """
    height, width = image.shape[-2:]
    multiple = restorer.size_multiple
    rows = tile_starts(height, tile, overlap, multiple)
    columns = tile_starts(width, tile, overlap, multiple)
    total = torch.zeros(image.shape, dtype=torch.float32, device=image.device)
    weight = total.new_zeros((1, 1, height, width))
    spots = list(product(_slopes(rows), _slopes(columns)))

    def restore(spot: tuple[tuple[slice, Tensor], tuple[slice, Tensor]]) -> Tensor:
        (y, _), (x, _) = spot
        part = image[..., y, x]
        seen = unit(part, restorer.dtype) if part.dtype == torch.uint8 else part
        return restorer(seen, embeddings).float()

    # Tiles of a batch, and what they need.
    bytes_each = len(image) * rows[1] * columns[1] * restorer.config.width * 4 * _MAPS
    at_once = min(len(spots), max(1, TOGETHER // bytes_each))
    with _side_by_side(at_once, image.device) as each:
        for index, (spot, restored) in enumerate(zip(spots, each(restore, spots), strict=True)):
            (y, down), (x, across) = spot
            share = (down[:, None] * across).to(image.device)
            total[..., y, x] += restored * share
            weight[..., y, x] += share
            if watch is not None:
                watch((index + 1) / len(spots))
    return total.div_(weight)


Spot = TypeVar("Spot")

Each = Callable[[Callable[[Spot], Tensor], Iterable[Spot]], Iterable[Tensor]]
"""Like `map`: the results in the order of what they are made of."""


@contextmanager
def _side_by_side(at_once: int, device: torch.device) -> Generator[Each[Any]]:
    """Give a CPU's threads a tile each, ``at_once`` at most: that wastes less than sharing each.

    `benchmarks/restore_windows.py --tiles 320 --threads 2` beside ``--threads 1`` shows it.
    """
    threads = torch.get_num_threads()
    workers = min(threads, at_once)
    if device.type != "cpu" or workers < 2 or torch.is_grad_enabled():
        yield map
        return
    # Modes belong to a thread: the workers get the caller's.
    inference, kind = torch.is_inference_mode_enabled(), torch.get_autocast_dtype("cpu")
    halved = torch.is_autocast_enabled("cpu")

    def each(restore: Callable[[Spot], Tensor], spots: Iterable[Spot]) -> Iterable[Tensor]:
        def run(spot: Spot) -> Tensor:
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(False),
                torch.autocast("cpu", kind, enabled=halved),
            ):
                return restore(spot)

        return pool.map(run, spots)

    pool = ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
    )
    try:
        yield each
    finally:
        pool.shutdown(cancel_futures=True)
        # A thread keeps the number that it sets, but threads to come take the last one set.
        torch.set_num_threads(threads)
        give_back_free()  # the threads' own heaps would keep what they once held


def tile_starts(length: int, tile: int, overlap: int, multiple: int = 1) -> tuple[list[int], int]:
    """Where tiles of one length begin along a side, evenly, as few as will do.

    Args:
        length: of the side.
        tile: the longest that a tile may be.
        overlap: of neighbours, at least; at most half a tile is used.
        multiple: of a tile's length, where that is shorter than ``tile``.

    Returns:
        The starts, from 0, and the tiles' length; the last tile ends with the side.
    """
    if length <= tile:
        return [0], length
    overlap = min(overlap, tile // 2)
    count = -(-(length - overlap) // (tile - overlap))
    even = -(-(length + (count - 1) * overlap) // count)
    side = min(tile, -(-even // multiple) * multiple)
    return [index * (length - side) // (count - 1) for index in range(count)], side


def _slopes(tiles: tuple[list[int], int]) -> list[tuple[slice, Tensor]]:
    """Each tile's place along its side, and its weights there.

    1, but falling linearly towards a neighbour over what both share.
    """
    starts, side = tiles
    found: list[tuple[slice, Tensor]] = []
    for index, start in enumerate(starts):
        weights = torch.ones(side)
        before = starts[index - 1] + side - start if index > 0 else 0
        after = start + side - starts[index + 1] if index + 1 < len(starts) else 0
        weights[:before] = torch.arange(1, before + 1) / (before + 1)
        falling = torch.arange(after, 0, -1) / (after + 1)
        weights[side - after :] = torch.minimum(weights[side - after :], falling)
        found.append((slice(start, start + side), weights))
    return found
