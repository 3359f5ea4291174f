"""What the network is shown where a photograph is transparent."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Kind = TypeVar("_Kind", bound=np.unsignedinteger[Any])


def fill_transparent(pixels: NDArray[_Kind], alpha: NDArray[Any]) -> NDArray[_Kind]:
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
