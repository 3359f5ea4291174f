"""Peak signal-to-noise ratio."""

from __future__ import annotations

from typing import Any

import torch

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
        DataError: the shapes differ or are no image batches.
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
