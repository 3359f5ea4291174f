"""What every metric asks of its two images."""

from __future__ import annotations

import torch

from mmfe_cache.errors import DataError


def check_pair(restored: torch.Tensor, clean: torch.Tensor) -> None:
    """Refuse what is no pair of image batches.

    Args:
        restored: (B, C, H, W) floating point.
        clean: likewise, of the same shape.

    Raises:
        DataError: the shapes differ, an image is empty, or the values are not floating point.
    """
    if restored.shape != clean.shape:
        raise DataError(
            "the two images of a pair differ in shape",
            got=f"{tuple(restored.shape)} and {tuple(clean.shape)}",
            expected="equal shapes (B, C, H, W)",
        )
    if restored.ndim != 4 or 0 in restored.shape:
        raise DataError(
            "a metric needs batches of images",
            got=f"shape {tuple(restored.shape)}",
            expected="(B, C, H, W), nothing empty",
        )
    if not (restored.is_floating_point() and clean.is_floating_point()):
        raise DataError(
            "a metric needs floating point images in [0, 1]",
            got=f"{restored.dtype} and {clean.dtype}",
            expected="uint8 images divided by 255",
        )
