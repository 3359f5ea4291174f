"""GDFN: the gated feed-forward network with depthwise convolutions (Restormer; paper, A.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.layers import conv1x1, convolve, depthwise3x3, pointwise


class GDFN(nn.Module):
    """1×1 to twice the hidden channels, depthwise 3×3, GELU(first half) · second half, 1×1.

    Args:
        channels: C.
        expansion: gamma; the hidden channels are int(gamma * C).
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = conv1x1(channels, 2 * hidden)
        self.dwconv = depthwise3x3(2 * hidden)
        self.project_out = conv1x1(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        gate, value = convolve(pointwise(x, self.project_in), self.dwconv).chunk(2, dim=-1)
        return pointwise(F.gelu(gate) * value, self.project_out)
