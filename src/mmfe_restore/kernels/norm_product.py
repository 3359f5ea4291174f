"""u = LN(x) Wᵀ: LayerNorm and the 1×1 convolution that follows it, for one tile of pixels.

x is read once and LN(x) never written. In the block it makes u from x, and h from x'.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmfe_restore.kernels.tiles import options, pitch, power, product, standardise

EPS = 1e-5
"""What LayerNorm adds to the variance (Restormer)."""


@triton.jit
def _norm_product(
    x, scale, shift, matrix, out, P, C: tl.constexpr, N: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, EPS: tl.constexpr,
    SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.arange(0, BC)
    here = (p < P)[:, None] & (c < C)[None, :]
    rows = tl.load(x + p.to(tl.int64)[:, None] * C + c[None, :], here, 0.0).to(SUM)
    normed, _ = standardise(rows, c, C, EPS)
    a = tl.load(scale + c, c < C, 0.0).to(SUM)
    b = tl.load(shift + c, c < C, 0.0).to(SUM)
    normed = (normed * a[None, :] + b[None, :]).to(x.dtype.element_ty)

    for start in range(0, N, BN):
        n = start + tl.arange(0, BN)
        part = tl.load(
            matrix + n[:, None] * C + c[None, :], (n < N)[:, None] & (c < C)[None, :], 0.0
        )
        values = product(normed, tl.trans(part), tl.zeros((BP, BN), SUM), PRECISION)
        place = out + p.to(tl.int64)[:, None] * N + n[None, :]
        tl.store(place, values.to(out.dtype.element_ty), (p < P)[:, None] & (n < N)[None, :])


def norm_product(x: Tensor, scale: Tensor, shift: Tensor, matrix: Tensor) -> Tensor:
    """LN(x) Wᵀ.

    Args:
        x: (B, H, W, C), contiguous.
        scale: (C,) of the LayerNorm.
        shift: (C,) of the LayerNorm.
        matrix: (N, C), of ``x``'s type.

    Returns:
        (B, H, W, N).
    """
    channels, wide = x.shape[-1], matrix.shape[0]
    assert pitch(x) == channels
    count = x.shape[:-1].numel()
    out = torch.empty((*x.shape[:-1], wide), dtype=x.dtype, device=x.device)
    held = power(channels)
    at_once = max(16, min(128, 16384 // held))
    _norm_product[(triton.cdiv(count, at_once),)](
        x, scale, shift, matrix, out, count, channels, wide,
        BP=at_once, BC=held, BN=min(64, power(wide)), EPS=EPS,
        **options(x.dtype, held),
    )  # fmt: skip
    return out
