"""Restoring one image held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from mmfe_cache.errors import DataError, ModelError, UsageError
from mmfe_restore.inference.tiles import restore_tiles

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_cache.samples import ImageArray
    from mmfe_restore.model import Restorer
    from mmfe_restore.model.work import Watch

Tile = Literal["auto", "off"] | int
"""``auto`` and ``off`` restore the whole image at once; a number is the side of a tile."""


def restore_image(
    restorer: Restorer,
    image: ImageArray,
    embeddings: Embeddings | None = None,
    *,
    tile: Tile = "auto",
    overlap: int = 64,
    precision: Literal["32", "bf16", "16"] = "32",
    watch: Watch | None = None,
) -> ImageArray:
    """Restore one image.

    Args:
        restorer: in evaluation mode, on any device.
        image: (H, W, 3) uint8 RGB, H and W at least 1.
        embeddings: of this one image (B = 1); None takes the null guidance.
        tile: ``auto`` and ``off`` restore the whole image; its strips are exact, so tiles are
            needed only where even those do not fit. A number restores overlapping tiles of that
            side, which is not exact: attention then sees each tile by itself.
        overlap: of neighbouring tiles, in pixels; blended linearly.
        precision: of the arithmetic; less than 32 bits runs under autocast.
        watch: is told the share of the image that is done, from 0 to 1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: ``image`` is no such array.
        ModelError: embeddings that do not fit, or weights that give NaN.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8" or 0 in image.shape:
        raise DataError(
            "restore_image takes one RGB image",
            got=f"shape {image.shape}, {image.dtype}",
            expected="(H, W, 3) uint8, H and W at least 1",
            remedy="read files with mmfe_cache.images.read_rgb8",
        )
    if isinstance(tile, int) and tile < 64:
        raise UsageError("a tile is too small", got=tile, expected="at least 64 pixels")
    device = restorer.device
    # A copy: the array may be read-only or flipped, and torch takes neither.
    pixels = torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None]
    source = pixels.to(restorer.dtype) / 255
    halved = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=halved, enabled=halved is not None),
    ):
        if isinstance(tile, int):
            restored = restore_tiles(
                restorer, source, embeddings, tile=tile, overlap=overlap, watch=watch
            )
        else:
            restored = restorer(source, embeddings, watch=watch)
        restored = restored.float()
        if not bool(restored.isfinite().all()):
            raise ModelError(
                "the restorer gave NaN or infinity",
                got=f"a network of {restorer.dtype} run in {precision} bits",
                expected="finite pixels",
                remedy="use --precision 32; if that does not help, the weights are damaged",
            )
        rounded = restored[0].clamp(0, 1).mul(255).round().to(torch.uint8)
    return rounded.permute(1, 2, 0).contiguous().cpu().numpy()
