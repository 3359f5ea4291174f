"""Eq. 3: the Haar wavelet transform of I_deg at the sizes that MoFE needs."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfe_restore.model.layers import to_nchw, to_nhwc, without_autocast

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import ModelConfig


@cache
def _transform(device: str, dtype: torch.dtype) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources and torch.jit, which are not ours to mend
        from pytorch_wavelets import DWTForward

        return DWTForward(J=1, wave="haar", mode="zero").to(device=device, dtype=dtype)


@cache
def _inverse(device: str, dtype: torch.dtype) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from pytorch_wavelets import DWTInverse

        return DWTInverse(wave="haar", mode="zero").to(device=device, dtype=dtype)


def haar(image: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar transform.

    Args:
        image: (B, 3, H, W), H and W even, float32 or float64.

    Returns:
        LL (B, 3, H/2, W/2), and LH, HL, HH as (B, 3, 3, H/2, W/2): channel, then band.
    """
    restoring = not torch.is_grad_enabled() and image.dtype == torch.float32
    if torch.compiler.is_compiling() or restoring:
        # The same transform in plain slices: the package's autograd function cannot be traced, and
        # one photograph should not wait for the package's imports. Its filters have the precision
        # of float32, so in float64 alone the two would differ, by 1e-8.
        a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]
        c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]
        bands = (a + b - c - d, a - b + c - d, a - b - c + d)
        return (a + b + c + d) / 2, torch.stack(bands, dim=2) / 2
    low, high = _transform(str(image.device), image.dtype)(image)
    return low, high[0]


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """The picture that `haar` takes apart.

    Args:
        low: (B, 3, H/2, W/2) LL.
        high: (B, 3, 3, H/2, W/2): channel, then LH, HL, HH.

    Returns:
        (B, 3, H, W), of their dtype.
    """
    inverse: Tensor = _inverse(str(low.device), low.dtype)((low, [high]))
    return inverse


def num_bands(config: ModelConfig) -> int:
    """K, the channels that the experts see."""
    if config.experts == "spatial":
        return 3
    return 12 if config.low_band else 9


def bands_at(image: Tensor, size: tuple[int, int], config: ModelConfig) -> Tensor:
    """F_HF of I_deg resized to ``size`` (Eq. 3); the resized image itself in the spatial domain.

    Args:
        image: (B, 3, H, W) the degraded image.
        size: (H', W') of the feature map, even.
        config: says which bands the experts see.

    Returns:
        (B, H'/2, W'/2, 9): LH, HL, HH of R, G, B, in this order; 12 channels with LL in front.
        (B, H', W', 3) in the spatial domain. Float32 or better.
    """
    with without_autocast(image):
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        resized = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        if config.experts == "spatial":
            return to_nhwc(resized).contiguous()
        low, high = haar(resized)
        bands = high.transpose(1, 2).flatten(1, 2)
        if config.low_band:
            bands = torch.cat([low, bands], dim=1)
        return to_nhwc(bands).contiguous()


def picture_of(bands: Tensor, config: ModelConfig) -> Tensor:
    """The picture whose `bands_at` are ``bands``, on its own grid; LL is 0 where they lack it.

    Linear: of a difference of two pictures' bands it makes the pictures' difference.

    Args:
        bands: (B, H/2, W/2, 9 or 12), or (B, H, W, 3) in the spatial domain.
        config: says which bands these are.

    Returns:
        (B, 3, H, W).
    """
    channels = to_nchw(bands)
    if config.experts == "spatial":
        return channels
    high = channels[:, -9:].unflatten(1, (3, 3)).transpose(1, 2)
    low = channels[:, :3] if config.low_band else torch.zeros_like(channels[:, :3])
    return inverse_haar(low.contiguous(), high.contiguous())
