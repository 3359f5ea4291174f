"""Image quality: PSNR, SSIM in both published protocols, LPIPS as an extra, and their table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.metrics.base import luma as luma
    from mmfe_restore.metrics.lpips import LPIPS as LPIPS
    from mmfe_restore.metrics.psnr_ssim import (
        PSNR as PSNR,
        SSIM as SSIM,
        psnr_per_image as psnr_per_image,
        ssim_per_image as ssim_per_image,
    )
    from mmfe_restore.metrics.registry import METRICS as METRICS, MetricInfo as MetricInfo


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
