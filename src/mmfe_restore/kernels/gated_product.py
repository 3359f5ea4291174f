"""y = x' + (GELU(a) · b) Wᵀ with a and b the depthwise convolution of h's halves.

The second half of GDFN: neither a, b nor their gated product is ever written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmfe_restore.kernels.tiles import (
    TILE_WIDTH,
    chunk,
    depthwise,
    options,
    pitch,
    pixels,
    power,
    product,
    read,
    rows_for,
    tiles,
    write,
)


@triton.jit
def gaussian_share(a):
    """Φ(a), the share of a normal distribution below ``a``: GELU(a) = a Φ(a)."""
    return 0.5 * (1 + tl.erf(a * 0.7071067811865476))


@triton.jit
def _gated_product(
    h, taps, matrix, x, out, H, W, C: tl.constexpr, K: tl.constexpr,
    BC: tl.constexpr, BK: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    row, column = pixels(tl.program_id(0), W, TH, TW)
    h += image * H * W * 2 * K
    x += image * H * W * C
    out += image * H * W * C
    c = tl.arange(0, BC)

    total = tl.zeros((TH * TW, BC), SUM)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        a = depthwise(h, taps, row, column, k, H, W, K, 2 * K, 2 * K, False, SUM)
        b = depthwise(h + K, taps + K, row, column, k, H, W, K, 2 * K, 2 * K, False, SUM)
        gated = a * gaussian_share(a) * b
        part = tl.load(
            matrix + c[:, None] * K + k[None, :], (c < C)[:, None] & (k < K)[None, :], 0.0
        )
        total = product(gated.to(h.dtype.element_ty), tl.trans(part), total, PRECISION)
    total += read(x, row, column, c, H, W, C, C)
    write(out, row, column, c, H, W, C, C, total)


def gated_product(h: Tensor, taps: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    """X + (GELU(a) · b) Wᵀ.

    Args:
        h: (B, H, W, 2K), contiguous: a and b before their depthwise convolution.
        taps: (9, 2K) of that convolution, float32 or better.
        matrix: (C, K), of ``x``'s type.
        x: (B, H, W, C), contiguous.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = x.shape
    hidden = matrix.shape[1]
    assert pitch(h) == 2 * hidden and pitch(x) == channels
    held = power(channels)
    rows = rows_for(held)
    out = torch.empty_like(x)
    _gated_product[(tiles(x, rows), batch)](
        h, taps, matrix, x, out, height, width, channels, hidden,
        BC=held, BK=chunk(rows), TH=rows, TW=TILE_WIDTH, **options(x.dtype, held),
    )  # fmt: skip
    return out
