"""MoFE, the mixture of frequency experts: the router (Eq. 4), its experts and their fusion.

Paper, Section 3.2, Eqs. 3 to 6.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.layers import conv1x1, to_nchw, to_nhwc, without_autocast
from mmfe_restore.model.mdta import CrossMDTA


class Router(nn.Module):
    """S = σ(W_r E_Answer) (Eq. 4).

    Args:
        guidance_dim: D.
        num_experts: N.
    """

    def __init__(self, guidance_dim: int, num_experts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(guidance_dim, num_experts)

    def forward(self, answer: Tensor) -> Tensor:
        """E_Answer (B, D) to S (B, N) in (0, 1)."""
        # In float32 or better: L_MGL compares cosines of S, which reduced precision would blur.
        precise = torch.promote_types(self.linear.weight.dtype, torch.float32)
        weight, bias = self.linear.weight.to(precise), self.linear.bias.to(precise)
        with without_autocast(answer):
            return F.linear(answer.to(precise), weight, bias).sigmoid()


class Experts(nn.Module):
    """Σ_i S_i · M_i(x) with N experts M_i = Conv3×3 – GELU – Conv3×3 on K channels.

    All experts are always on (a sigmoid gate), so they run as two dense convolutions. Scaling
    the hidden channels of expert i by S_i, and its last bias too, is the same sum.

    Args:
        num_experts: N.
        bands: K, the channels in and out: 9 (12 with the LL band, 3 in the spatial domain).
        channels: C, the hidden channels of each expert.
    """

    def __init__(self, num_experts: int, bands: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.expand = nn.Conv2d(bands, num_experts * channels, 3, padding=1)
        self.contract = nn.Conv2d(num_experts * channels, bands, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.empty(num_experts, bands))
        # Each expert starts as a convolution of its own would: fan-in C * 9, not N * C * 9.
        bound = 1 / math.sqrt(channels * 9)
        nn.init.uniform_(self.contract.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, bands: Tensor, weights: Tensor) -> Tensor:
        """Mix the experts' outputs.

        Args:
            bands: (B, H, W, K), F_HF.
            weights: (B, N), S.

        Returns:
            (B, H, W, K).
        """
        hidden = to_nhwc(F.gelu(self.expand(to_nchw(bands))))
        scale = weights.to(hidden.dtype).repeat_interleave(self.channels, dim=1)
        mixed = self.contract(to_nchw(hidden * scale[:, None, None]))
        bias = weights @ self.bias.to(weights.dtype)
        return to_nhwc(mixed) + bias.to(mixed.dtype)[:, None, None]

    def single(self, index: int, bands: Tensor) -> Tensor:
        """M_index alone, unweighted, for figures: (B, H, W, K) to (B, H, W, K)."""
        rows = slice(index * self.channels, (index + 1) * self.channels)
        assert self.expand.bias is not None
        hidden = F.conv2d(
            to_nchw(bands), self.expand.weight[rows], self.expand.bias[rows], padding=1
        )
        weight = self.contract.weight[:, rows]
        return to_nhwc(F.conv2d(F.gelu(hidden), weight, self.bias[index], padding=1))


class MoFE(nn.Module):
    """F + Conv1×1(MDTA(Q = F, K = V = F'_HF)), F'_HF the routed experts' view of I_deg.

    Args:
        channels: C.
        heads: attention heads; must divide C.
        guidance_dim: D.
        num_experts: N.
        bands: K: 9 high-frequency channels, 12 with the LL band, 3 in the spatial domain.
    """

    def __init__(
        self, channels: int, heads: int, guidance_dim: int, num_experts: int, bands: int
    ) -> None:
        super().__init__()
        self.router = Router(guidance_dim, num_experts)
        self.experts = Experts(num_experts, bands, channels)
        self.project = conv1x1(bands, channels)
        self.attn = CrossMDTA(channels, heads)

    def mix(self, bands: Tensor, answer: Tensor, size: tuple[int, int]) -> Tensor:
        """Σ S_i · M_i(F_HF), at the size of F.

        Args:
            bands: (B, H/2, W/2, K) the subbands of I_deg (Eq. 3); (B, H, W, 3) in the spatial
                domain.
            answer: (B, D) E_Answer.
            size: (H, W).

        Returns:
            (B, H, W, K).
        """
        mixed = self.experts(bands, self.router(answer))  # Eq. 4
        if tuple(mixed.shape[1:3]) == size:
            return mixed
        # The wavelet transform halved the size; K channels are cheaper to enlarge than C.
        larger = F.interpolate(to_nchw(mixed), size=size, mode="bilinear", align_corners=False)
        return to_nhwc(larger).contiguous()

    def forward(self, x: Tensor, bands: Tensor, answer: Tensor) -> Tensor:
        """Fuse the experts' view into ``x`` (B, H, W, C); arguments as for `mix`."""
        mixed = self.mix(bands, answer, (x.shape[1], x.shape[2]))
        return x + self.attn(x, mixed, self.project)  # Eqs. 5 and 6
