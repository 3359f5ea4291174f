"""Image quality as torchmetrics: PSNR, SSIM in both published protocols, LPIPS as an extra."""

from __future__ import annotations

from mmfe_restore.metrics.lpips import LPIPS
from mmfe_restore.metrics.luma import luma
from mmfe_restore.metrics.psnr import PSNR, psnr_per_image
from mmfe_restore.metrics.ssim import SSIM, ssim_per_image

__all__ = ["LPIPS", "PSNR", "SSIM", "luma", "psnr_per_image", "ssim_per_image"]
