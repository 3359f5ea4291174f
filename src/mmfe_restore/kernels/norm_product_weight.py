"""The gradient of W where u = LN(x) Wᵀ and u passes a depthwise convolution.

    ∂W = Σ over pixels of ∂uᵀ LN(x), with ∂u the transposed convolution of d

d is the gradient behind the convolution; LN(x) and ∂u are made again and not written. A program
takes some rows of W and a share of all tiles: all rows at once would not fit its registers, so this
is no part of `norm_product_data`, though both read d and x.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmfe_restore.kernels.norm_product import EPS
from mmfe_restore.kernels.tiles import (
    TILE_WIDTH,
    depthwise,
    options,
    pixels,
    power,
    product,
    read,
    rows_for,
    shares,
    standardise,
    sums_in,
    tiles,
)


@triton.jit
def _norm_product_weight(
    d, taps, x, scale, shift, g_matrix, H, W, tiles, all_tiles,
    C: tl.constexpr, N: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, EPS: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    share = tl.program_id(1)
    count = tl.cdiv(all_tiles, tl.num_programs(1))
    c = tl.arange(0, BC)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    kind = d.dtype.element_ty
    a = tl.load(scale + c, c < C, 0.0).to(SUM)
    b = tl.load(shift + c, c < C, 0.0).to(SUM)

    total = tl.zeros((BN, BC), SUM)
    for tile in range(share * count, min(share * count + count, all_tiles)):
        row, column = pixels(tile % tiles, W, TH, TW)
        image = (tile // tiles).to(tl.int64) * H * W
        g_u = depthwise(d + image * N, taps, row, column, n, H, W, N, N, N, True, SUM)
        rows = read(x + image * C, row, column, c, H, W, C, C).to(SUM)
        normed, _ = standardise(rows, c, C, EPS)
        normed = normed * a[None, :] + b[None, :]
        total = product(tl.trans(g_u.to(kind)), normed.to(kind), total, PRECISION)

    there = (n < N)[:, None] & (c < C)[None, :]
    tl.store(g_matrix + share * N * C + n[:, None] * C + c[None, :], total, there)


def norm_product_weight(d: Tensor, taps: Tensor, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The gradient of W.

    Args:
        d: (B, H, W, N), contiguous: the gradient of what the convolution of u gave.
        taps: (9, N) of that convolution, float32 or better.
        x: (B, H, W, C), contiguous.
        scale: (C,) of the LayerNorm.
        shift: (C,) of the LayerNorm.

    Returns:
        (N, C), float32 or better.
    """
    batch, height, width, channels = x.shape
    wide = d.shape[-1]
    held = power(channels)
    rows = rows_for(held)
    at_once = max(16, min(64, 16384 // held))
    count = tiles(x, rows)
    chunks = triton.cdiv(wide, at_once)
    parts = shares(batch * count, chunks, wide * channels, d.numel())
    g_matrix = torch.empty((parts, wide, channels), dtype=sums_in(x.dtype), device=x.device)
    _norm_product_weight[(chunks, parts)](
        d, taps, x, scale, shift, g_matrix, height, width, count, batch * count,
        channels, wide, BC=held, BN=at_once, EPS=EPS, TH=rows, TW=TILE_WIDTH,
        **options(x.dtype, held),
    )  # fmt: skip
    return g_matrix.sum(0)
