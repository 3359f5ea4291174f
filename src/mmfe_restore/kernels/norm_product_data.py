"""The gradient of x where u = LN(x) Wᵀ, u passes a depthwise convolution, and x a residual.

With d the gradient behind the convolution, n = LN(x) = x̂ s + t, and r what x was divided by (σ),

    ∂u = transposed convolution of d                ∂n = ∂u W
    ∂x = g + (∂n s - mean(∂n s) - x̂ mean(∂n s x̂)) / σ
    ∂s = Σ ∂n x̂                                     ∂t = Σ ∂n

g is the gradient that goes around LayerNorm and product, through the residual. Neither ∂u nor ∂n is
written. In the block it makes the gradient of x' (d: of a and b) and of x (d: of q, k and v).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmfe_restore.kernels.norm_product import EPS
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
    standardise,
    sums_in,
    tiles,
    write,
)


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
