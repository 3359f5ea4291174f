"""y = x' + (GELU(a) · b) Wᵀ with a and b the depthwise convolution of h's halves.

The second half of GDFN: neither a, b nor their gated product is ever written.

Backward it gives the gradients of a and b, of W, and of the taps. With g the gradient of y
and g W that of the gated product,

    ∂a = g W · b · (Φ(a) + a φ(a))        ∂W = Σ gᵀ (GELU(a) · b)
    ∂b = g W · GELU(a)                    ∂taps[i, j] = Σ ∂a[y, x] · h[y + i - 1, x + j - 1]

a and b are computed again from h. ∂h is the transposed convolution of ∂a and ∂b: whoever reads
them makes it on the way, as the forward pass makes a and b of h. A program takes some of the hidden
channels and a share of all tiles.
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
    shares,
    sums_in,
    taps_gradient,
    tiles,
    write,
    write_taps,
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


@triton.jit
def _gated_product_backward(
    h, taps, matrix, gradient, out, g_matrix, g_taps, H, W, tiles, all_tiles,
    C: tl.constexpr, K: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    share = tl.program_id(1)
    count = tl.cdiv(all_tiles, tl.num_programs(1))
    c = tl.arange(0, BC)
    k = tl.program_id(0) * BK + tl.arange(0, BK)
    place = c[:, None] * K + k[None, :]
    there = (c < C)[:, None] & (k < K)[None, :]
    part = tl.load(matrix + place, there, 0.0)
    kind = h.dtype.element_ty

    w_total = tl.zeros((BC, BK), SUM)
    a_taps, b_taps = tl.zeros((16, BK), SUM), tl.zeros((16, BK), SUM)
    for tile in range(share * count, min(share * count + count, all_tiles)):
        y, x = pixels(tile % tiles, W, TH, TW)
        image = (tile // tiles).to(tl.int64) * H * W
        a_from, b_from = h + image * 2 * K, h + image * 2 * K + K
        a = depthwise(a_from, taps, y, x, k, H, W, K, 2 * K, 2 * K, False, SUM)
        b = depthwise(b_from, taps + K, y, x, k, H, W, K, 2 * K, 2 * K, False, SUM)
        share_of_a = gaussian_share(a)
        gelu = a * share_of_a
        g = read(gradient + image * C, y, x, c, H, W, C, C)
        w_total = product(tl.trans(g), (gelu * b).to(kind), w_total, PRECISION)

        g_gated = product(g, part, tl.zeros((TH * TW, BK), SUM), PRECISION)
        density = 0.3989422804014327 * tl.exp(-0.5 * a * a)
        g_a = g_gated * b * (share_of_a + a * density)
        g_b = g_gated * gelu
        a_taps = taps_gradient(a_taps, a_from, g_a, y, x, k, H, W, K, 2 * K)
        b_taps = taps_gradient(b_taps, b_from, g_b, y, x, k, H, W, K, 2 * K)
        write(out + image * 2 * K, y, x, k, H, W, K, 2 * K, g_a)
        write(out + image * 2 * K + K, y, x, k, H, W, K, 2 * K, g_b)

    tl.store(g_matrix + share * C * K + place, w_total, there)
    write_taps(g_taps + share * 18 * K, a_taps, k, K, 2 * K)
    write_taps(g_taps + share * 18 * K + K, b_taps, k, K, 2 * K)


def gated_product_backward(
    h: Tensor, taps: Tensor, matrix: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `gated_product`.

    Args:
        h: (B, H, W, 2K), contiguous.
        taps: (9, 2K).
        matrix: (C, K), of ``h``'s type.
        gradient: (B, H, W, C) of the output, contiguous. It is that of x' too, and left to whoever
            adds up what x' gets.

    Returns:
        Of a and b side by side (B, H, W, 2K); of the matrix (C, K) and of the taps (9, 2K), both
        float32 or better.
    """
    batch, height, width, channels = gradient.shape
    hidden = matrix.shape[1]
    held = power(channels)
    rows = rows_for(held)
    at_once = chunk(rows)
    count = tiles(h, rows)
    chunks = triton.cdiv(hidden, at_once)
    parts = shares(batch * count, chunks, channels * hidden, h.numel())
    kind = sums_in(h.dtype)
    out = torch.empty_like(h)
    g_matrix = torch.empty((parts, channels, hidden), dtype=kind, device=h.device)
    g_taps = torch.empty((parts, 9, 2 * hidden), dtype=kind, device=h.device)
    _gated_product_backward[(chunks, parts)](
        h, taps, matrix, gradient, out, g_matrix, g_taps, height, width, count, batch * count,
        channels, hidden, BC=held, BK=at_once, TH=rows, TW=TILE_WIDTH,
        **options(h.dtype, held),
    )  # fmt: skip
    return out, g_matrix.sum(0), g_taps.sum(0)
