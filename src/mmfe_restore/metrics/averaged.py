"""The mean of per-image values, the same over any number of processes."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics import Metric


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
