"""PSNR, and structural similarity in the two protocols that published tables mix.

``uniform`` is a 7×7 box window, scikit-image's default (PromptIR, AdaIR, DFPIR, OneRestore);
``gaussian`` an 11×11 window of σ = 1.5 (MoCE-IR). Both use the sample covariance, as
scikit-image does by default. torchmetrics' own SSIM uses the population covariance and differs
in the third decimal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from mmfe_cache.errors import DataError
from mmfe_restore.metrics.base import AveragedMetric, Channel, check_pair, luma


def psnr_per_image(
    restored: torch.Tensor, clean: torch.Tensor, *, data_range: float = 1.0
) -> torch.Tensor:
    """PSNR of every image, over all its channels at once.

    Equal to scikit-image's ``peak_signal_noise_ratio``; computed in float64.

    Args:
        restored: (B, C, H, W), within ``data_range``.
        clean: the ground truth, of the same shape.
        data_range: the largest value less the smallest one that is possible.

    Returns:
        (B,) float64, dB; inf where the two images are identical.

    Raises:
        DataError: the shapes differ or are not image batches.
    """
    check_pair(restored, clean)
    error = (restored.double() - clean.double()).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(data_range**2 / error)


class PSNR(AveragedMetric):
    """Mean PSNR of images in [0, 1], dB.

    Identical images have an infinite PSNR: they are counted in ``infinite`` and left out of
    the mean.

    Args:
        channel: ``"rgb"``, or ``"y"`` for the luma of RGB images.
        data_range: the largest value less the smallest one that is possible.
        **kwargs: torchmetrics' own options.
    """

    def __init__(self, channel: Channel = "rgb", data_range: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channel: Channel = channel
        self.data_range = data_range

    def per_image(self, restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """(B,) float64 PSNR of one batch, dB; inf where the images are identical."""
        if self.channel == "y":
            restored, clean = luma(restored), luma(clean)
        return psnr_per_image(restored, clean, data_range=self.data_range)


Window = Literal["uniform", "gaussian"]
Covariance = Literal["sample", "population"]

WINDOW_SIZES: dict[Window, int] = {"uniform": 7, "gaussian": 11}
"""Side of each window in pixels; an image must be at least that large."""

_SIGMA = 1.5
_K1, _K2 = 0.01, 0.03
# Rows are worked through in bands, so that a 4K image needs no more memory than a small one.
_BAND_PIXELS = 1 << 18


def ssim_per_image(
    restored: torch.Tensor,
    clean: torch.Tensor,
    *,
    window: Window = "uniform",
    covariance: Covariance = "sample",
    data_range: float = 1.0,
) -> torch.Tensor:
    """SSIM of every image, the mean over its channels and over all whole windows.

    Equal to scikit-image's ``structural_similarity`` with ``channel_axis`` (and
    ``gaussian_weights=True`` for the Gaussian window); computed in float64.

    Args:
        restored: (B, C, H, W), within ``data_range``.
        clean: the ground truth, of the same shape.
        window: ``"uniform"`` (7×7) or ``"gaussian"`` (11×11, σ = 1.5).
        covariance: ``"sample"``, or ``"population"`` as in Wang's own MATLAB code.
        data_range: the largest value less the smallest one that is possible.

    Returns:
        (B,) float64, at most 1.

    Raises:
        DataError: the shapes differ, or an image is smaller than the window.
    """
    check_pair(restored, clean)
    side = WINDOW_SIZES[window]
    height, width = restored.shape[-2:]
    if min(height, width) < side:
        raise DataError(
            f"the image is smaller than SSIM's {window} window",
            got=f"{height}×{width} pixels",
            expected=f"at least {side}×{side}",
        )
    taps = _taps(window)
    unbiased = side**2 / (side**2 - 1) if covariance == "sample" else 1.0
    constants = ((_K1 * data_range) ** 2, (_K2 * data_range) ** 2)

    images, channels = restored.shape[:2]
    total = torch.zeros(images, dtype=torch.float64, device=restored.device)
    whole_rows = height - side + 1
    band = max(1, _BAND_PIXELS // (images * channels * width))
    for top in range(0, whole_rows, band):
        bottom = min(top + band, whole_rows) + side - 1
        total += _band_sum(
            restored[:, :, top:bottom].double(),
            clean[:, :, top:bottom].double(),
            taps,
            unbiased,
            constants,
        )
    return total / (channels * whole_rows * (width - side + 1))


def _band_sum(
    x: torch.Tensor,
    y: torch.Tensor,
    taps: Sequence[float],
    unbiased: float,
    constants: tuple[float, float],
) -> torch.Tensor:
    """(B,) sum of the SSIM map of one band of rows."""
    mean_x, mean_y = _blur(x, taps), _blur(y, taps)
    var_x = unbiased * (_blur(x * x, taps) - mean_x * mean_x)
    var_y = unbiased * (_blur(y * y, taps) - mean_y * mean_y)
    cov = unbiased * (_blur(x * y, taps) - mean_x * mean_y)
    c1, c2 = constants
    above = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    below = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return (above / below).sum(dim=(1, 2, 3))


def _blur(image: torch.Tensor, taps: Sequence[float]) -> torch.Tensor:
    """Weighted means over every whole window: both windows are separable and symmetric."""
    # Shifted sums: a float64 convolution takes ten times as long on a CPU.
    for axis in (-1, -2):
        length = image.shape[axis] - len(taps) + 1
        blurred = image.narrow(axis, len(taps) // 2, length) * taps[len(taps) // 2]
        for offset, weight in enumerate(taps[: len(taps) // 2]):
            mirrored = len(taps) - 1 - offset
            blurred.add_(image.narrow(axis, offset, length), alpha=weight)
            blurred.add_(image.narrow(axis, mirrored, length), alpha=weight)
        image = blurred
    return image


def _taps(window: Window) -> tuple[float, ...]:
    side = WINDOW_SIZES[window]
    if window == "uniform":
        return (1.0 / side,) * side
    weights = [math.exp(-0.5 * ((k - side // 2) / _SIGMA) ** 2) for k in range(side)]
    return tuple(weight / sum(weights) for weight in weights)


class SSIM(AveragedMetric):
    """Mean SSIM of images in [0, 1].

    Args:
        window: ``"uniform"`` (7×7) or ``"gaussian"`` (11×11, σ = 1.5).
        channel: ``"rgb"`` (mean over the channels), or ``"y"`` for the luma of RGB images.
        covariance: ``"sample"``, or ``"population"`` as in Wang's own MATLAB code.
        data_range: the largest value less the smallest one that is possible.
        **kwargs: torchmetrics' own options.
    """

    def __init__(
        self,
        window: Window = "uniform",
        channel: Channel = "rgb",
        covariance: Covariance = "sample",
        data_range: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.window: Window = window
        self.channel: Channel = channel
        self.covariance: Covariance = covariance
        self.data_range = data_range

    def per_image(self, restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """(B,) float64 SSIM of one batch."""
        if self.channel == "y":
            restored, clean = luma(restored), luma(clean)
        return ssim_per_image(
            restored,
            clean,
            window=self.window,
            covariance=self.covariance,
            data_range=self.data_range,
        )
