"""Image quality: PSNR, SSIM in both published protocols, LPIPS as an extra, and their table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.metrics.base import luma
    from mmfe_restore.metrics.lpips import LPIPS
    from mmfe_restore.metrics.psnr_ssim import PSNR, SSIM, psnr_per_image, ssim_per_image
    from mmfe_restore.metrics.registry import METRICS, MetricInfo

__all__ = [
    "LPIPS",
    "METRICS",
    "PSNR",
    "SSIM",
    "MetricInfo",
    "luma",
    "psnr_per_image",
    "ssim_per_image",
]

# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "base": ["luma"],
        "lpips": ["LPIPS"],
        "psnr_ssim": ["PSNR", "SSIM", "psnr_per_image", "ssim_per_image"],
        "registry": ["METRICS", "MetricInfo"],
    },
)
