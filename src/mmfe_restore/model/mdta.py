"""MDTA: attention between channels (Restormer), of a map to itself or to another (Eqs. 5, 6).

Attention over channels is a C×C matrix per head, a sum over pixels, so its cost is linear in the
image. Two steps of exact algebra keep full-size maps few: Q and K are L2-normalised over the
pixels *after* their product, on the C×C matrix, and the 1×1 output convolution is multiplied
into the attention matrix, so that V is read once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_restore.model.layers import conv1x1, convolve, depthwise3x3, pointwise, without_autocast

_EPS = 1e-12
"""The smallest norm that Q and K are divided by, as in `torch.nn.functional.normalize`."""


def attention_matrix(
    product: Tensor, q_norm: Tensor, k_norm: Tensor, temperature: Tensor
) -> Tensor:
    """Softmax(temperature · Q̂ᵀK̂) from sums over pixels.

    Args:
        product: (B, h, d, d) sum over the pixels of q_c · k_e.
        q_norm: (B, h, d) L2 norm of each channel of Q over the pixels.
        k_norm: (B, h, d) of K.
        temperature: (h, 1, 1) the learned one that stands for Eq. 6's 1/sqrt(d).

    Returns:
        (B, h, d, d) in float32 or better; rows sum to 1.
    """
    cosine = product / q_norm.clamp_min(_EPS)[..., None] / k_norm.clamp_min(_EPS)[..., None, :]
    return (cosine * temperature).softmax(dim=-1)


def fold_output(attention: Tensor, output: Tensor) -> Tensor:
    """W_O · blockdiag(attention): one matrix that takes V to the block's output.

    Args:
        attention: (B, h, d, d).
        output: (C, C) the weight of the 1×1 output convolution, C = h * d.

    Returns:
        (B, C, C): the output of a pixel is this matrix times its V.
    """
    heads, d = attention.shape[1:3]
    per_head = output.unflatten(1, (heads, d))  # (C, h, d)
    return torch.einsum("chd,bhde->bche", per_head.to(attention.dtype), attention).flatten(2)


def transposed_attention(
    q: Tensor, k: Tensor, v: Tensor, temperature: Tensor, output: Tensor
) -> Tensor:
    """Conv1×1(Softmax(Q̂K̂ᵀ · temperature) V) (the bracket of Eq. 6).

    Args:
        q: (B, P, C) queries; channels of a head lie together.
        k: (B, P, C) keys.
        v: (B, P, C) values.
        temperature: (h, 1, 1).
        output: (C, C) the weight of the 1×1 output convolution.

    Returns:
        (B, P, C).
    """
    heads = temperature.shape[0]
    if q.dtype == torch.float16:  # a sum over many pixels overflows float16: normalise first
        q = F.normalize(q.float(), dim=1, eps=_EPS).to(q.dtype)
        k = F.normalize(k.float(), dim=1, eps=_EPS).to(k.dtype)
    precise = torch.promote_types(q.dtype, torch.float32)
    with without_autocast(q):
        q_norm = torch.linalg.vector_norm(q, dim=1, dtype=precise).unflatten(-1, (heads, -1))
        k_norm = torch.linalg.vector_norm(k, dim=1, dtype=precise).unflatten(-1, (heads, -1))
        q, k = q.unflatten(-1, (heads, -1)), k.unflatten(-1, (heads, -1))
        product = torch.einsum("bphd,bphe->bhde", q, k).to(precise)
        attention = attention_matrix(product, q_norm, k_norm, temperature.to(precise))
        matrix = fold_output(attention, output).to(v.dtype)
        return v @ matrix.transpose(1, 2)


class MDTA(nn.Module):
    """Self-attention between the channels of one map; keys as in Restormer.

    Args:
        channels: C.
        heads: h; must divide C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv1x1(channels, 3 * channels)
        self.qkv_dwconv = depthwise3x3(3 * channels)
        self.project_out = conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        q, k, v = convolve(pointwise(x, self.qkv), self.qkv_dwconv).flatten(1, 2).chunk(3, dim=-1)
        out = transposed_attention(q, k, v, self.temperature, self.project_out.weight.flatten(1))
        return out.view(x.shape)


class CrossMDTA(nn.Module):
    """MDTA in which F^l asks and the frequency feature F'_HF answers (Eqs. 5 and 6).

    Args:
        channels: C.
        heads: h; must divide C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = conv1x1(channels, channels)
        self.query_dwconv = depthwise3x3(channels)
        self.key_value = conv1x1(channels, 2 * channels)
        self.key_value_dwconv = depthwise3x3(2 * channels)
        self.project_out = conv1x1(channels, channels)

    def key_value_matrix(self, projection: nn.Conv2d) -> Tensor:
        """(2C, K): W_K and W_V times the K→C ``projection`` that precedes them.

        F'_HF has K = 9 independent channels, so one 9→2C product replaces 9→C and C→2C.
        """
        return self.key_value.weight.flatten(1) @ projection.weight.flatten(1)

    def forward(self, x: Tensor, bands: Tensor, projection: nn.Conv2d) -> Tensor:
        """Ask with ``x`` (B, H, W, C) what ``projection`` (K→C) of ``bands`` (B, H, W, K) holds.

        Returns:
            (B, H, W, C), to be added to ``x``.
        """
        q = convolve(pointwise(x, self.query), self.query_dwconv).flatten(1, 2)
        key_value = F.linear(bands, self.key_value_matrix(projection))
        k, v = convolve(key_value, self.key_value_dwconv).flatten(1, 2).chunk(2, dim=-1)
        out = transposed_attention(q, k, v, self.temperature, self.project_out.weight.flatten(1))
        return out.view(x.shape)
