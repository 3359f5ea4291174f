"""The Y channel in which deraining is judged by Restormer and its kin."""

from __future__ import annotations

import torch

from mmfe_cache.errors import DataError

# ITU-R BT.601, studio range: Y of 8-bit RGB lies in 16 to 235. The same weights as MATLAB's
# rgb2ycbcr and scikit-image's.
_WEIGHTS = (65.481, 128.553, 24.966)
_OFFSET = 16.0


def luma(image: torch.Tensor, *, rounded: bool = False) -> torch.Tensor:
    """Y of an RGB batch.

    Args:
        image: (B, 3, H, W) in [0, 1].
        rounded: round Y to whole 8-bit levels, as MATLAB does to an 8-bit picture.

    Returns:
        (B, 1, H, W) float64 in [16/255, 235/255].

    Raises:
        DataError: there are not three channels.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise DataError(
            "Y needs RGB images", got=f"shape {tuple(image.shape)}", expected="(B, 3, H, W)"
        )
    weights = torch.tensor(_WEIGHTS, dtype=torch.float64, device=image.device)
    y = torch.einsum("bchw,c->bhw", image.double(), weights)[:, None] + _OFFSET
    return (y.round() if rounded else y) / 255.0
