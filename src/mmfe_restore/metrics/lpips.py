"""LPIPS, the learned perceptual distance: an extra whose backbone weights are not shipped."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch

from mmfe_cache.errors import DataError
from mmfe_restore.metrics.base import AveragedMetric, check_pair

Backbone = Literal["alex", "vgg", "squeeze"]

SMALLEST = 64
"""Pixels on the shorter side that every backbone can take in."""

_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class LPIPS(AveragedMetric):
    """Mean LPIPS of images in [0, 1]; lower is better.

    The linear layers come with torchmetrics; the backbone's ImageNet weights are torchvision's
    and must lie in torch's hub folder. Nothing is downloaded here.

    Args:
        backbone: ``"alex"`` (what papers report), ``"vgg"`` or ``"squeeze"``.
        **kwargs: torchmetrics' own options.

    Raises:
        DataError: the backbone's weights are not on this machine.
    """

    higher_is_better = False

    def __init__(self, backbone: Backbone = "alex", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _require_weights(backbone)
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        distance = LearnedPerceptualImagePatchSimilarity(
            net_type=backbone, reduction="none", normalize=True
        )
        self._net = cast("torch.nn.Module", distance.net).eval()

    def per_image(self, restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """(B,) float64 LPIPS of one batch.

        Raises:
            DataError: the shapes differ, or an image is too small for the backbone.
        """
        check_pair(restored, clean)
        if restored.shape[1] != 3 or min(restored.shape[-2:]) < SMALLEST:
            raise DataError(
                "LPIPS cannot judge this image",
                got=f"shape {tuple(restored.shape)}",
                expected=f"RGB, at least {SMALLEST} pixels on each side",
            )
        with torch.inference_mode():
            value = self._net(restored.float() * 2 - 1, clean.float() * 2 - 1)
        return value.reshape(len(restored)).double()


def _require_weights(backbone: Backbone) -> None:
    from pathlib import Path

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / _FILES[backbone]).is_file():
        raise DataError(
            f"LPIPS needs the ImageNet weights of its backbone, {backbone}",
            got=f"no {_FILES[backbone]} in {folder}",
            expected="torchvision's file of that name",
            remedy=f"fetch it once with torchvision, or copy it to {folder}",
        )
