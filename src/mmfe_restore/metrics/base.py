"""What every metric shares: the check of its images, luma, and the mean over images."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torchmetrics import Metric

from mmfe_cache.errors import DataError

Channel = Literal["rgb", "y"]

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


def check_pair(restored: torch.Tensor, clean: torch.Tensor) -> None:
    """Refuse what is not a pair of image batches.

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


class AveragedMetric(Metric):
    """Mean over images; those of an infinite value are counted, not averaged.

    Sums are kept in float64 and added over processes, so that uneven shares weigh right. An
    image with nan in it is never taken for a perfect one: it makes the mean nan.

    Attributes:
        total: sum of the values below infinity.
        count: how many images had one.
        infinite: how many had none (PSNR of two identical images).
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update: bool | None = False

    total: torch.Tensor
    count: torch.Tensor
    infinite: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("infinite", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def per_image(self, restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """The (B,) float64 values of one batch; what a subclass defines."""
        raise NotImplementedError

    def update(self, restored: torch.Tensor, clean: torch.Tensor) -> None:
        """Take in a batch.

        Args:
            restored: (B, C, H, W) in [0, 1].
            clean: the ground truth, of the same shape.
        """
        values = self.per_image(restored, clean)
        perfect = values == float("inf")
        self.total += values[~perfect].sum()
        self.count += (~perfect).sum()
        self.infinite += perfect.sum()

    def compute(self) -> torch.Tensor:
        """The mean over images below infinity; inf where all were perfect, nan without images."""
        if self.count > 0:
            return self.total / self.count
        return torch.tensor(float("inf" if self.infinite > 0 else "nan"), dtype=torch.float64)
