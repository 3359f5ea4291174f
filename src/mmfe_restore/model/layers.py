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

_EPS = 1e-5
"""What LayerNorm adds to the variance (Restormer)."""


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
    """LayerNorm over the channels of each pixel, with bias (Restormer's).

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
            return F.layer_norm(x, weight.shape, weight, bias, _EPS)

    def standardise(self, x: Tensor) -> Tensor:
        """LayerNorm without its scale and shift, for inference: (..., C) to (..., C)."""
        if x.dtype != torch.float32 or x.device.type != "cpu":
            with without_autocast(x):
                return F.layer_norm(x, x.shape[-1:], eps=_EPS)
        # torch's kernel works off one pixel after the other, at 20 ns each for 16 channels; whole
        # maps take half of that.
        centred = x - x.mean(dim=-1, keepdim=True)
        spread = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        variance = spread.square_().div_(x.shape[-1])
        return centred.mul_(variance.add_(_EPS).rsqrt_())

    def folded(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift multiplied into the 1×1 convolution ``matrix`` (K', C) that follows.

        Returns:
            The matrix (K', C) and the bias (K',) to use on what `standardise` gives.
        """
        return matrix * self.body.weight, matrix @ self.body.bias
