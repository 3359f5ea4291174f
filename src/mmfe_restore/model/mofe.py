"""MoFE, the mixture of frequency experts: the router (Eq. 4), its experts and their fusion.

Paper, Section 3.2, Eqs. 3 to 6.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.restormer import CrossMDTA, conv1x1, to_nchw, to_nhwc, without_autocast

if TYPE_CHECKING:
    from mmfe_restore.recipes.schema import ModelConfig


_one_at_a_time = Lock()
"""Tiles are restored by several threads, and filters of warnings belong to all of them."""


@cache
def _transform(device: str, dtype: torch.dtype) -> Any:
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources and torch.jit, which we cannot change
        from pytorch_wavelets import DWTForward

        return DWTForward(J=1, wave="haar", mode="zero").to(device=device, dtype=dtype)


@cache
def _inverse(device: str, dtype: torch.dtype) -> Any:
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from pytorch_wavelets import DWTInverse

        return DWTInverse(wave="haar", mode="zero").to(device=device, dtype=dtype)


def haar(image: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar transform.

    Args:
        image: (B, 3, H, W), H and W even, float32 or float64.

    Returns:
        LL (B, 3, H/2, W/2), and LH, HL, HH as (B, 3, 3, H/2, W/2): channel, then band.
    """
    restoring = not torch.is_grad_enabled() and image.dtype == torch.float32
    if torch.compiler.is_compiling() or restoring:
        # The same transform in plain slices: the package's autograd function cannot be traced, and
        # one photograph should not wait for the package's imports. Its filters have the precision
        # of float32, so in float64 alone the two would differ, by 1e-8.
        a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]
        c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]
        bands = (a + b - c - d, a - b + c - d, a - b - c + d)
        return (a + b + c + d) / 2, torch.stack(bands, dim=2) / 2
    low, high = _transform(str(image.device), image.dtype)(image)
    return low, high[0]


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """The picture that `haar` takes apart.

    Args:
        low: (B, 3, H/2, W/2) LL.
        high: (B, 3, 3, H/2, W/2): channel, then LH, HL, HH.

    Returns:
        (B, 3, H, W), of their dtype.
    """
    inverse: Tensor = _inverse(str(low.device), low.dtype)((low, [high]))
    return inverse


def num_bands(config: ModelConfig) -> int:
    """K, the channels that the experts see."""
    if config.experts == "spatial":
        return 3
    return 12 if config.low_band else 9


def bands_at(image: Tensor, size: tuple[int, int], config: ModelConfig) -> Tensor:
    """F_HF of I_deg resized to ``size`` (Eq. 3); the resized image itself in the spatial domain.

    Args:
        image: (B, 3, H, W) the degraded image.
        size: (H', W') of the feature map, even.
        config: says which bands the experts see.

    Returns:
        (B, H'/2, W'/2, 9): LH, HL, HH of R, G, B, in this order; 12 channels with LL in front.
        (B, H', W', 3) in the spatial domain. Float32 or better.
    """
    with without_autocast(image):
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        resized = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        if config.experts == "spatial":
            return to_nhwc(resized).contiguous()
        low, high = haar(resized)
        bands = high.transpose(1, 2).flatten(1, 2)
        if config.low_band:
            bands = torch.cat([low, bands], dim=1)
        return to_nhwc(bands).contiguous()


def picture_of(bands: Tensor, config: ModelConfig) -> Tensor:
    """The picture whose `bands_at` are ``bands``, on its own grid; LL is 0 where they lack it.

    Linear: of a difference of two pictures' bands it makes the pictures' difference.

    Args:
        bands: (B, H/2, W/2, 9 or 12), or (B, H, W, 3) in the spatial domain.
        config: says which bands these are.

    Returns:
        (B, 3, H, W).
    """
    channels = to_nchw(bands)
    if config.experts == "spatial":
        return channels
    high = channels[:, -9:].unflatten(1, (3, 3)).transpose(1, 2)
    low = channels[:, :3] if config.low_band else torch.zeros_like(channels[:, :3])
    return inverse_haar(low.contiguous(), high.contiguous())


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
