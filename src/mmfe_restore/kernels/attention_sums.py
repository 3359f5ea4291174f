"""Σ q kᵀ, Σ q² and Σ k² over the pixels, with q and k the depthwise convolution of u.

All that MDTA's matrix needs (Eq. 6): q and k are divided by their norms afterwards, on the matrix.
q and k themselves are never written. A program takes one head of one image and a share of its
tiles; what the shares find is added up afterwards, in the same order every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmfe_restore.kernels.tiles import (
    TILE_WIDTH,
    depthwise,
    options,
    pitch,
    pixels,
    power,
    product,
    rows_for,
    shares,
    sums_in,
    tiles,
)


@triton.jit
def _attention_sums(
    u, taps, products, squares, H, W, pitch, tiles, C: tl.constexpr, D: tl.constexpr,
    N: tl.constexpr, BD: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    share, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = tl.cdiv(tiles, tl.num_programs(0))
    c = tl.arange(0, BD)
    q_from = u + image.to(tl.int64) * H * W * pitch + head * D
    q_taps = taps + head * D

    qk = tl.zeros((BD, BD), SUM)
    qq, kk = tl.zeros((BD,), SUM), tl.zeros((BD,), SUM)
    for tile in range(share * count, min(share * count + count, tiles)):
        y, x = pixels(tile, W, TH, TW)
        q = depthwise(q_from, q_taps, y, x, c, H, W, D, pitch, N, False, SUM)
        k = depthwise(q_from + C, q_taps + C, y, x, c, H, W, D, pitch, N, False, SUM)
        qq += tl.sum(q * q, 0)
        kk += tl.sum(k * k, 0)
        kind = u.dtype.element_ty
        qk = product(tl.trans(q.to(kind)), k.to(kind), qk, PRECISION)

    place = (image * tl.num_programs(1) + head) * tl.num_programs(0) + share
    there = c < D
    tl.store(squares + place * 2 * D + c, qq, there)
    tl.store(squares + place * 2 * D + D + c, kk, there)
    both = there[:, None] & there[None, :]
    tl.store(products + place * D * D + c[:, None] * D + c[None, :], qk, both)


def attention_sums(u: Tensor, taps: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of q and k.

    Args:
        u: (B, H, W, 2C), the first two thirds of u: q and k before their depthwise convolution.
        taps: (9, 3C) of the whole convolution, float32 or better.
        heads: h, d = C / h.

    Returns:
        Σ q kᵀ (B, h, d, d); Σ q² and Σ k² (B, 2, h, d); float32 or better.
    """
    batch, height, width, wide = u.shape
    channels = wide // 2
    d = channels // heads
    held = power(d)
    rows = rows_for(2 * held)
    count = tiles(u, rows)
    parts = shares(count, batch * heads, batch * channels * d, u.numel())
    kind = sums_in(u.dtype)
    products = torch.empty((batch, heads, parts, d, d), dtype=kind, device=u.device)
    squares = torch.empty((batch, heads, parts, 2, d), dtype=kind, device=u.device)
    _attention_sums[(parts, heads, batch)](
        u, taps, products, squares, height, width, pitch(u), count, channels, d, taps.shape[1],
        BD=held, TH=rows, TW=TILE_WIDTH, **options(u.dtype, held),
    )  # fmt: skip
    return products.sum(2), squares.sum(2).transpose(1, 2)
