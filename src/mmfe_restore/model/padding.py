"""Padding an image of any size to the multiple that the network needs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and the right of ``image`` to a multiple of ``multiple``.

    By reflection, repeated where the image is smaller than the padding; a side of one pixel has
    nothing to reflect and is replicated.

    Args:
        image: (B, C, H, W), any H and W from 1.
        multiple: of both sides.

    Returns:
        (B, C, H', W'); the image itself where it already fits.
    """
    height, width = image.shape[-2:]
    return _pad(_pad(image, -height % multiple, -2), -width % multiple, -1)


def _pad(image: Tensor, missing: int, axis: int) -> Tensor:
    while missing > 0:
        size = image.shape[axis]
        step = missing if size == 1 else min(missing, size - 1)
        amounts = (0, 0, 0, step) if axis == -2 else (0, step, 0, 0)
        image = F.pad(image, amounts, mode="replicate" if size == 1 else "reflect")
        missing -= step
    return image
