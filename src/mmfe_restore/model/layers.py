"""The layers that every part is made of, on channels-last maps.

Shape legend: B batch, H and W height and width, C channels, T guidance tokens, D guidance width,
N experts, P pixels (H * W), h heads, d channels of a head.

Inside the network every map is (B, H, W, C) and contiguous: LayerNorm over the channels and
1×1 convolutions then work on rows of memory, and a convolution sees the same memory as NCHW in
the channels-last format, without a copy.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_nhwc(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H, W, C); a view where the memory already is channels-last."""
    return x_BCHW.permute(0, 2, 3, 1)


def to_nchw(x_BHWC: Tensor) -> Tensor:
    """(B, H, W, C) to (B, C, H, W), a view."""
    return x_BHWC.permute(0, 3, 1, 2)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which operations on ``x``'s device keep the types that they are given."""
    # The meta device, which counts arithmetic without computing, knows no autocast.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def convolve(x_BHWC: Tensor, conv: nn.Conv2d | nn.Sequential) -> Tensor:
    """Run ``conv`` on a channels-last map: (B, H, W, C) to (B, H', W', C')."""
    return to_nhwc(conv(to_nchw(x_BHWC)))


def pointwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1×1 convolution as a matrix product over the last axis: (..., C) to (..., C')."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def conv1x1(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(channels_in, channels_out, 1, bias=False)


def depthwise3x3(channels: int) -> nn.Conv2d:
    """A 3×3 convolution of each channel by itself, without bias."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


class _Affine(nn.Module):
    """Scale and shift; a module of its own because Restormer's keys call it ``body``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class LayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel, with bias, eps 1e-5 (Restormer's).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = _Affine(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        # Reduced precision keeps its type: the kernel itself sums in float32, and autocast's
        # float32 output would double the memory of every map.
        weight, bias = self.body.weight.to(x.dtype), self.body.bias.to(x.dtype)
        with without_autocast(x):
            return F.layer_norm(x, weight.shape, weight, bias, 1e-5)
