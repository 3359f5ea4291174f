"""MGFB, the MLLM-guided fusion block (paper, Section 3.1, Eqs. 1 and 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfe_restore.model.restormer import GDFN, LayerNorm, conv1x1, convolve, depthwise3x3, pointwise


class CrossAttention(nn.Module):
    """Attn(F, E) = Softmax(QKᵀ/√d) V (Eq. 1): every pixel asks the guide's tokens.

    Args:
        channels: C.
        heads: h; must divide C.
        guidance_dim: D.
    """

    def __init__(self, channels: int, heads: int, guidance_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_guidance = nn.Linear(guidance_dim, channels)
        self.query = conv1x1(channels, channels)
        self.query_dwconv = depthwise3x3(channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.project_out = conv1x1(channels, channels)

    def keys_values(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """K, and V with the output convolution multiplied in, of the guide's tokens.

        Every pixel mixes the same T tokens, so W_O is applied to T tokens and not to P pixels.

        Args:
            guidance: (B, T, D).

        Returns:
            K / √d as (B, h, d, T), and (B, h * T, C).
        """
        tokens = self.project_guidance(guidance)
        k = self.key(tokens).unflatten(-1, (self.heads, -1))  # (B, T, h, d)
        v = self.value(tokens).unflatten(-1, (self.heads, -1))
        out = self.project_out.weight.flatten(1).unflatten(1, (self.heads, -1))  # (C, h, d)
        values = torch.einsum("bthd,chd->bhtc", v, out.to(v.dtype)).flatten(1, 2)
        return k.permute(0, 2, 3, 1) * k.shape[-1] ** -0.5, values

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Softmax(QKᵀ/√d) V W_O of pixels.

        Args:
            q: (B, P, C).
            keys: (B, h, d, T) as `keys_values` gives them.
            values: (B, h * T, C).

        Returns:
            (B, P, C).
        """
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, P, d)
        weights = (q @ keys).softmax(dim=-1).to(values.dtype)  # (B, h, P, T)
        return weights.transpose(1, 2).flatten(2) @ values

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Fuse ``guidance`` (B, T, D) with ``x`` (B, H, W, C): (B, H, W, C)."""
        q = convolve(pointwise(x, self.query), self.query_dwconv).flatten(1, 2)
        return self.attend(q, *self.keys_values(guidance)).view(x.shape)


class MGFB(nn.Module):
    """F + Attn(LayerNorm(F), E) (Eq. 2), then F + GDFN(LayerNorm(F)).

    Args:
        channels: C.
        heads: attention heads; must divide C.
        expansion: of the feed-forward network.
        guidance_dim: D, the width of the guide's embeddings.
    """

    def __init__(self, channels: int, heads: int, expansion: float, guidance_dim: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = CrossAttention(channels, heads, guidance_dim)
        self.norm2 = LayerNorm(channels)
        self.ffn = GDFN(channels, expansion)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """(B, H, W, C) and E_Image or E_Joint (B, T, D) to (B, H, W, C)."""
        x = x + self.attn(self.norm1(x), guidance)  # Eq. 2
        return x + self.ffn(self.norm2(x))
