"""Overlapping tiles, blended: not exact, for images whose strips still do not fit."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_restore.model import Restorer
    from mmfe_restore.model.work import Watch


def restore_tiles(
    restorer: Restorer,
    image: Tensor,
    embeddings: Embeddings | None,
    *,
    tile: int,
    overlap: int,
    watch: Watch | None = None,
) -> Tensor:
    """Restore ``image`` tile by tile with linear blending where tiles overlap.

    Args:
        restorer: the network.
        image: (1, 3, H, W) in [0, 1].
        embeddings: of the whole image; every tile uses them.
        tile: side of a tile in pixels.
        overlap: of neighbouring tiles in pixels; at most half a tile is used.
        watch: is told the share of the tiles that are done, from 0 to 1.

    Returns:
        (1, 3, H, W) float32.
    """
    height, width = image.shape[-2:]
    overlap = min(overlap, tile // 2)
    total = image.new_zeros((1, 3, height, width), dtype=torch.float32)
    weight = image.new_zeros((1, 1, height, width), dtype=torch.float32)
    corners = list(product(starts(height, tile, overlap), starts(width, tile, overlap)))
    for index, (top, left) in enumerate(corners):
        rows, columns = slice(top, top + tile), slice(left, left + tile)
        restored = restorer(image[..., rows, columns], embeddings).float()
        ramp = _ramp(restored.shape[-2], top, height, overlap, image.device)[:, None] * _ramp(
            restored.shape[-1], left, width, overlap, image.device
        )
        total[..., rows, columns] += restored * ramp
        weight[..., rows, columns] += ramp
        if watch is not None:
            watch((index + 1) / len(corners))
    return total / weight


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start along one side, so that they cover it and the last one ends with it."""
    if length <= tile:
        return [0]
    step = tile - overlap
    return [*range(0, length - tile, step), length - tile]


def _ramp(size: int, start: int, length: int, overlap: int, device: torch.device) -> Tensor:
    """Weights of one tile along one side: linear over the overlap, 1 elsewhere and at borders."""
    ramp = torch.ones(size, device=device)
    slope = torch.arange(1, overlap + 1, device=device) / (overlap + 1)
    if start > 0:
        ramp[:overlap] = slope
    if start + size < length:
        ramp[size - overlap :] = torch.minimum(ramp[size - overlap :], slope.flip(0))
    return ramp
