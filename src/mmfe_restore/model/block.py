"""Restormer's Transformer block and its changes of resolution."""

from __future__ import annotations

from torch import Tensor, nn

from mmfe_restore.model.feedforward import GDFN
from mmfe_restore.model.layers import LayerNorm, convolve
from mmfe_restore.model.mdta import MDTA


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
