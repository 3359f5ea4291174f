"""The reconstruction loss L_rec: L1 in RGB and in the Fourier domain (paper, Section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def l1_loss(restored_BCHW: Tensor, clean_BCHW: Tensor) -> Tensor:
    """Mean absolute error.

    Args:
        restored_BCHW: (B, C, H, W), unclamped.
        clean_BCHW: (B, C, H, W), range [0, 1].

    Returns:
        a scalar.
    """
    return F.l1_loss(restored_BCHW, clean_BCHW)


def fourier_loss(restored_BCHW: Tensor, clean_BCHW: Tensor) -> Tensor:
    """Mean absolute error of the two-dimensional spectra, after MoCE-IR.

    The transform is `torch.fft.rfft2` with its default norm (unscaled forward); real and
    imaginary parts count as separate numbers, and the mean runs over all of them.

    Args:
        restored_BCHW: (B, C, H, W), unclamped.
        clean_BCHW: (B, C, H, W), range [0, 1].

    Returns:
        a scalar; computed in float32 at least, since half precision has no such transform
        and an unscaled spectrum would overflow it.
    """
    precise = torch.promote_types(restored_BCHW.dtype, torch.float32)
    # One transform of the difference is the difference of the transforms, at half the cost.
    spectrum = torch.fft.rfft2(restored_BCHW.to(precise) - clean_BCHW.to(precise))
    return torch.view_as_real(spectrum).abs().mean()
