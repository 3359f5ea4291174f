"""MoFE, the mixture of frequency experts (paper, Section 3.2, Eqs. 3 to 6)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.experts import Experts, Router
from mmfe_restore.model.layers import conv1x1, to_nchw, to_nhwc
from mmfe_restore.model.mdta import CrossMDTA


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
