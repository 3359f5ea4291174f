"""Restormer's Transformer block: MDTA, the gated feed-forward network, changes of resolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.layers import LayerNorm, conv1x1, convolve, depthwise3x3, pointwise
from mmfe_restore.model.mdta import MDTA


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


class TransformerBlock(nn.Module):
    """x + MDTA(LayerNorm(x)), then x + GDFN(LayerNorm(x)).

    Args:
        channels: C.
        heads: attention heads; must divide C.
        expansion: of the feed-forward network.
    """

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = MDTA(channels, heads)
        self.norm2 = LayerNorm(channels)
        self.ffn = GDFN(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Downsample(nn.Module):
    """Half the size, twice the channels: conv 3×3 to C/2, then pixel-unshuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H/2, W/2, 2C)."""
        return convolve(x, self.body).contiguous()


class Upsample(nn.Module):
    """Twice the size, half the channels: conv 3×3 to 2C, then pixel-shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, 2H, 2W, C/2)."""
        return convolve(x, self.body).contiguous()
