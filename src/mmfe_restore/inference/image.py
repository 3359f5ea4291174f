"""Restoring one image held in memory, whole or in tiles; what is seen where it is transparent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfe_cache.errors import DataError, ModelError, UsageError
from mmfe_cache.machine import Precision, float32_products, require_bf16, short_name
from mmfe_restore.model.parts import unit
from mmfe_restore.model.restorer import pad_to_multiple
from mmfe_restore.model.tiles import OVERLAP, Tile, needed_tile, restore_tiles

if TYPE_CHECKING:
    from mmfe_cache.embeddings import Embeddings
    from mmfe_restore.model import Restorer
    from mmfe_restore.model.runners import Watch


_Kind = TypeVar("_Kind", np.uint8, np.uint16, np.float32)

_Stored = TypeVar("_Stored", bound=np.unsignedinteger[Any])

_WHITES = {"uint8": 255, "uint16": 65535, "float32": 1}
"""What is white, by the type of an image."""


def restore_image(
    restorer: Restorer,
    image: NDArray[_Kind],
    embeddings: Embeddings | None = None,
    *,
    tile: Tile = "auto",
    overlap: int = OVERLAP,
    precision: Precision = "32",
    strength: float = 1.0,
    watch: Watch | None = None,
) -> NDArray[_Kind]:
    """Restore one image, at the depth that it has.

    Args:
        restorer: in evaluation mode, on any device.
        image: (H, W, 3) RGB in sRGB, H and W at least 1: uint8, uint16, or float32 in [0, 1].
        embeddings: of this one image (B = 1); None takes the null guidance.
        tile: ``auto`` and ``off`` restore the whole image; its strips are exact, so tiles are
            needed only where even those do not fit. A number restores overlapping tiles of at most
            that side, each seen by itself.
        overlap: of neighbouring tiles, in pixels, at least; blended linearly.
        precision: of the arithmetic; less than 32 bits runs under autocast. ``auto`` is bf16 on a
            GPU and 32 on a CPU.
        strength: how much of the restoration is taken, from 0 (the image as it is) to 1.
        watch: is told the share of the image that is done, from 0 to 1.

    Returns:
        (H, W, 3) of the type of ``image``.

    Raises:
        DataError: ``image`` is no such array.
        ModelError: embeddings that do not fit, or weights that give NaN.
    """
    white = _WHITES.get(str(image.dtype))
    if image.ndim != 3 or image.shape[2] != 3 or white is None or 0 in image.shape:
        raise DataError(
            "restore_image takes one RGB image",
            got=f"shape {image.shape}, {image.dtype}",
            expected="(H, W, 3) uint8, uint16 or float32, H and W at least 1",
            remedy="read files with mmfe_cache.images.read_rgb8",
        )
    if not 0 <= strength <= 1:
        raise UsageError("the strength is out of range", got=strength, expected="0 to 1")
    if overlap < 0:
        raise UsageError("the overlap is out of range", got=overlap, expected="0 or more pixels")
    device = restorer.device
    pixels = _as_tensor(image, white, device)
    height, width = image.shape[:2]
    side = needed_tile(tile, height, width)
    if side is None:
        # Padded as it is: a second copy in floating point is much of a large photograph's memory.
        pixels = pad_to_multiple(pixels, restorer.size_multiple)
    # Bytes stay bytes: the network turns them into floating point as it needs them.
    source = pixels if pixels.dtype == torch.uint8 else pixels.to(restorer.dtype)
    del pixels
    bits = short_name(precision)
    if bits == "auto":
        bits = "bf16" if device.type == "cuda" else "32"
    if bits == "bf16":
        require_bf16(device, "--precision 32 or 16")
    halved = {"bf16": torch.bfloat16, "16": torch.float16}.get(bits)
    with (
        torch.inference_mode(),
        float32_products(tf32=bits == "tf32"),
        torch.autocast(device.type, dtype=halved, enabled=halved is not None),
    ):
        if side is not None:
            restored = restore_tiles(
                restorer, source, embeddings, tile=side, overlap=overlap, watch=watch
            )
        elif source.dtype == torch.uint8:
            restored = restorer.restore_bytes(source, embeddings, watch=watch)
        else:
            restored = restorer(source, embeddings, watch=watch)
        restored = restored.float()[..., :height, :width]
        if not bool(restored.isfinite().all()):
            raise ModelError(
                "the restorer gave NaN or infinity",
                got=f"a network of {restorer.dtype} run in precision {bits}",
                expected="finite pixels",
                remedy="use --precision 32; if that does not help, the weights are damaged",
            )
        if strength < 1:
            # Of the image itself: what the network was given may have fewer digits.
            before = unit(_as_tensor(image, white, device), torch.float32)
            restored = torch.lerp(before, restored.clamp_(0, 1), strength)
        scaled = restored[0].clamp_(0, 1).permute(1, 2, 0)
        if image.dtype == "uint8":
            return scaled.mul_(255).round_().to(torch.uint8).contiguous().cpu().numpy()
        deep = scaled.contiguous().cpu().numpy()
    return (np.rint(deep * np.float32(white)) if white > 1 else deep).astype(image.dtype)


def _as_tensor(image: NDArray[Any], white: int, device: torch.device) -> Tensor:
    """(1, 3, H, W): bytes as they are, others as float32 in [0, 1]."""
    # A copy: the array may be read-only or flipped, and torch takes neither. Deep integers go as
    # floats, since torch can do next to nothing with unsigned 16 bits.
    copied: NDArray[Any] = image.copy() if image.dtype == "uint8" else image.astype("float32")
    pixels = torch.from_numpy(copied).to(device).permute(2, 0, 1)[None]
    return pixels if image.dtype == "uint8" else pixels.div_(white)


def fill_transparent(pixels: NDArray[_Stored], alpha: NDArray[Any]) -> NDArray[_Stored]:
    """Put the colours around them where pixels cannot be seen.

    Under full transparency lies any colour, often black. A network looks at a pixel's neighbours,
    so that colour would bleed into the edge that is seen. The colours are spread by halving the
    picture, each time averaging what is visible, and filling on the way back (push-pull).

    Args:
        pixels: (H, W, 3).
        alpha: (H, W); 0 is invisible.

    Returns:
        (H, W, 3) of the same type; visible pixels are untouched.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    colours = np.where(hidden[:, :, None], 0, pixels).astype(np.float32)
    filled = _spread(colours, (~hidden).astype(np.float32))
    result = pixels.copy()
    result[hidden] = np.rint(filled[hidden]).astype(pixels.dtype)
    return result


def _spread(colours: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill where ``weights`` is 0 from the next coarser level."""
    if (weights > 0).all() or max(weights.shape) == 1:
        return colours
    height, width = weights.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    even = ((0, 2 * rows - height), (0, 2 * columns - width))
    share = np.pad(weights, even).reshape(rows, 2, columns, 2)
    light = np.pad(colours * weights[:, :, None], (*even, (0, 0))).reshape(rows, 2, columns, 2, 3)
    total = share.sum(axis=(1, 3))
    mean = light.sum(axis=(1, 3)) / np.maximum(total, 1)[:, :, None]
    coarse = _spread(mean, (total > 0).astype(np.float32))
    larger = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(weights[:, :, None] > 0, colours, larger)
