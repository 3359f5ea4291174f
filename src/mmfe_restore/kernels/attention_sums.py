"""Σ q kᵀ, Σ q² and Σ k² over the pixels, with q and k the depthwise convolution of u.

All that MDTA's matrix needs (Eq. 6): q and k are divided by their norms afterwards, on the matrix.
q and k themselves are never written. A program takes one head of one image and a share of its
tiles; what the shares find is added up afterwards, in the same order every time.

Backward it gives the gradients of q and k, and of their taps. With G the gradient of Σ q kᵀ
(d × d), and e and f those of the sums of squares,

    ∂q = k Gᵀ + 2 e q        ∂taps[i, j] = Σ ∂q[y, x] · u[y + i - 1, x + j - 1]
    ∂k = q G + 2 f k         (likewise for k)

q and k are computed again from u. A program takes one head of one image and a share of its tiles.
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
    taps_gradient,
    tiles,
    write,
    write_taps,
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


@triton.jit
def _attention_sums_backward(
    u, taps, g_products, g_squares, out, g_taps, H, W, pitch, tiles,
    C: tl.constexpr, D: tl.constexpr, N: tl.constexpr, BD: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    share, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = tl.cdiv(tiles, tl.num_programs(0))
    c = tl.arange(0, BD)
    there = c < D
    first = image.to(tl.int64) * H * W
    q_from, k_from = u + first * pitch + head * D, u + first * pitch + C + head * D
    q_out, k_out = out + first * pitch + head * D, out + first * pitch + C + head * D
    taps += head * D
    head += image * tl.num_programs(1)
    kind = u.dtype.element_ty

    both = there[:, None] & there[None, :]
    g_qk = tl.load(g_products + head * D * D + c[:, None] * D + c[None, :], both, 0.0)
    g_qq = 2 * tl.load(g_squares + head * 2 * D + c, there, 0.0)
    g_kk = 2 * tl.load(g_squares + head * 2 * D + D + c, there, 0.0)

    q_taps, k_taps = tl.zeros((16, BD), SUM), tl.zeros((16, BD), SUM)
    for tile in range(share * count, min(share * count + count, tiles)):
        y, x = pixels(tile, W, TH, TW)
        q = depthwise(q_from, taps, y, x, c, H, W, D, pitch, N, False, SUM)
        k = depthwise(k_from, taps + C, y, x, c, H, W, D, pitch, N, False, SUM)
        g_q = product(k.to(kind), tl.trans(g_qk), q * g_qq[None, :], PRECISION)
        q_taps = taps_gradient(q_taps, q_from, g_q, y, x, c, H, W, D, pitch)
        write(q_out, y, x, c, H, W, D, pitch, g_q)
        g_k = product(q.to(kind), g_qk, k * g_kk[None, :], PRECISION)
        k_taps = taps_gradient(k_taps, k_from, g_k, y, x, c, H, W, D, pitch)
        write(k_out, y, x, c, H, W, D, pitch, g_k)

    place = g_taps + (image * tl.num_programs(0) + share) * 18 * C + (head % tl.num_programs(1)) * D
    write_taps(place, q_taps, c, D, 2 * C)
    write_taps(place + C, k_taps, c, D, 2 * C)


def attention_sums_backward(
    u: Tensor, taps: Tensor, g_products: Tensor, g_squares: Tensor, out: Tensor
) -> Tensor:
    """Gradients of `attention_sums`.

    Args:
        u: (B, H, W, 2C), the first two thirds of u.
        taps: (9, 3C) of the whole convolution.
        g_products: (B, h, d, d) of Σ q kᵀ, contiguous, of ``u``'s type.
        g_squares: (B, 2, h, d) of Σ q² and Σ k², float32 or better.
        out: (B, H, W, 2C) gets the gradients of q and k, with the pitch of ``u``.

    Returns:
        Of the taps of q and k, (9, 2C), float32 or better.
    """
    batch, height, width, wide = u.shape
    heads, d = g_products.shape[1:3]
    channels = wide // 2
    assert pitch(out) == pitch(u)
    held = power(d)
    rows = rows_for(2 * held)
    count = tiles(u, rows)
    parts = shares(count, batch * heads, 9 * batch * wide, u.numel())
    g_squares = g_squares.transpose(1, 2).contiguous()  # as the kernel reads them, (B, h, 2, d)
    g_taps = torch.empty((batch * parts, 9, wide), dtype=sums_in(u.dtype), device=u.device)
    _attention_sums_backward[(parts, heads, batch)](
        u, taps, g_products, g_squares, out, g_taps, height, width, pitch(u), count,
        channels, d, taps.shape[1], BD=held, TH=rows, TW=TILE_WIDTH,
        **options(u.dtype, held),
    )  # fmt: skip
    return g_taps.sum(0)
