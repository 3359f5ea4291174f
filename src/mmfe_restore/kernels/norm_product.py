"""u = LN(x) Wᵀ, LayerNorm and the 1×1 convolution that follows it, and its gradients.

`norm_product` reads x once, one tile of pixels at a time, and never writes LN(x). In the block it
makes u from x, and h from x'.

Backward, u passes a depthwise convolution, and x a residual. With d the gradient behind the
convolution, n = LN(x) = x̂ s + t, and σ what x was divided by,

    ∂u = transposed convolution of d                ∂n = ∂u W
    ∂x = g + (∂n s - mean(∂n s) - x̂ mean(∂n s x̂)) / σ
    ∂s = Σ ∂n x̂                                     ∂t = Σ ∂n
    ∂W = Σ over pixels of ∂uᵀ n

g is the gradient that goes around LayerNorm and product, through the residual; neither ∂u nor ∂n is
written. `norm_product_data` makes the gradients of x, s and t: of x' (d: of a and b) and of x (d:
of q, k and v). `norm_product_weight` makes that of W. A program of it takes some rows of W and a
share of all tiles: all rows at once would not fit its registers, so it is no part of
`norm_product_data`, though both read d and x.
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
    standardise,
    sums_in,
    tiles,
    write,
)

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


@triton.jit
def _norm_product_data(
    d, taps, matrix, x, scale, gradient, out, g_scale, g_shift, H, W,
    C: tl.constexpr, N: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, EPS: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64) * H * W
    row, column = pixels(tl.program_id(0), W, TH, TW)
    c = tl.arange(0, BC)

    g_normed = tl.zeros((TH * TW, BC), SUM)
    for start in range(0, N, BN):
        n = start + tl.arange(0, BN)
        g_u = depthwise(d + image * N, taps, row, column, n, H, W, N, N, N, True, SUM)
        part = tl.load(
            matrix + n[:, None] * C + c[None, :], (n < N)[:, None] & (c < C)[None, :], 0.0
        )
        g_normed = product(g_u.to(d.dtype.element_ty), part, g_normed, PRECISION)

    rows = read(x + image * C, row, column, c, H, W, C, C).to(SUM)
    normed, spread = standardise(rows, c, C, EPS)
    place = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * C + c
    tl.store(g_scale + place, tl.sum(g_normed * normed, 0), c < C)
    tl.store(g_shift + place, tl.sum(g_normed, 0), c < C)

    scaled = g_normed * tl.load(scale + c, c < C, 0.0).to(SUM)[None, :]
    mean = tl.sum(scaled, 1) / C
    along = tl.sum(scaled * normed, 1) / C
    scaled = (scaled - mean[:, None] - normed * along[:, None]) * spread[:, None]
    scaled += read(gradient + image * C, row, column, c, H, W, C, C)
    write(out + image * C, row, column, c, H, W, C, C, scaled)


def norm_product_data(
    d: Tensor, taps: Tensor, matrix: Tensor, x: Tensor, scale: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and of the LayerNorm.

    Args:
        d: (B, H, W, N), contiguous: the gradient of what the convolution of u gave.
        taps: (9, N) of that convolution, float32 or better.
        matrix: (N, C), of ``d``'s type.
        x: (B, H, W, C), contiguous.
        scale: (C,) of the LayerNorm.
        gradient: (B, H, W, C), contiguous: what comes through the residual.

    Returns:
        Of x (B, H, W, C); of scale and shift (C,), float32 or better.
    """
    batch, height, width, channels = x.shape
    wide = matrix.shape[0]
    assert pitch(d) == wide and pitch(x) == pitch(gradient) == channels
    held = power(channels)
    rows = rows_for(held)
    count = tiles(x, rows)
    kind = sums_in(x.dtype)
    out = torch.empty_like(x)
    g_scale, g_shift = torch.empty((2, batch * count, channels), dtype=kind, device=x.device)
    _norm_product_data[(count, batch)](
        d, taps, matrix, x, scale, gradient, out, g_scale, g_shift, height, width,
        channels, wide, BC=held, BN=chunk(rows), EPS=EPS, TH=rows, TW=TILE_WIDTH,
        **options(x.dtype, held),
    )  # fmt: skip
    return out, g_scale.sum(0), g_shift.sum(0)


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
