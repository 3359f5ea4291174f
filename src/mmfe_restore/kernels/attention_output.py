"""x' = x + v Mᵀ with v the depthwise convolution of u's last third.

M is the attention matrix with the 1×1 output convolution multiplied into it, one for each image
(`fold_output`), so that v is read once and never written.

Backward it gives the gradients of v, of M, and of v's taps. With g the gradient of x',

    ∂v = g M        ∂M = Σ gᵀ v        ∂taps[i, j] = Σ ∂v[y, x] · u[y + i - 1, x + j - 1]

v is computed again from u. A program takes some of v's channels, one image, and a share of its
tiles.
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
def _attention_output(
    u, taps, matrix, x, out, H, W, pitch, C: tl.constexpr, N: tl.constexpr,
    BC: tl.constexpr, BK: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    row, column = pixels(tl.program_id(0), W, TH, TW)
    u += image * H * W * pitch
    x += image * H * W * C
    out += image * H * W * C
    matrix += image * C * C
    c = tl.arange(0, BC)

    total = tl.zeros((TH * TW, BC), SUM)
    for start in range(0, C, BK):
        k = start + tl.arange(0, BK)
        v = depthwise(u, taps, row, column, k, H, W, C, pitch, N, False, SUM)
        part = tl.load(
            matrix + c[:, None] * C + k[None, :], (c < C)[:, None] & (k < C)[None, :], 0.0
        )
        total = product(v.to(u.dtype.element_ty), tl.trans(part), total, PRECISION)
    total += read(x, row, column, c, H, W, C, C)
    write(out, row, column, c, H, W, C, C, total)


def attention_output(v: Tensor, taps: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    """X + v Mᵀ.

    Args:
        v: (B, H, W, C), v before its depthwise convolution: the last third of u.
        taps: (9, 3C) of the whole convolution.
        matrix: (B, C, C), of ``x``'s type.
        x: (B, H, W, C), contiguous.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = x.shape
    held = power(channels)
    rows = rows_for(held)
    out = torch.empty_like(x)
    _attention_output[(tiles(x, rows), batch)](
        v, taps[:, -channels:], matrix, x, out, height, width, pitch(v), channels, taps.shape[1],
        BC=held, BK=chunk(rows), TH=rows, TW=TILE_WIDTH, **options(x.dtype, held),
    )  # fmt: skip
    return out


@triton.jit
def _attention_output_backward(
    u, taps, matrix, gradient, out, g_matrix, g_taps, H, W, pitch, out_pitch, tiles,
    C: tl.constexpr, N: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    share, image = tl.program_id(1), tl.program_id(2)
    count = tl.cdiv(tiles, tl.num_programs(1))
    first = image.to(tl.int64) * H * W
    u += first * pitch
    out += first * out_pitch
    gradient += first * C
    c = tl.arange(0, BC)
    k = tl.program_id(0) * BK + tl.arange(0, BK)
    place = c[:, None] * C + k[None, :]
    there = (c < C)[:, None] & (k < C)[None, :]
    part = tl.load(matrix + image * C * C + place, there, 0.0)

    m_total = tl.zeros((BC, BK), SUM)
    t_total = tl.zeros((16, BK), SUM)
    for tile in range(share * count, min(share * count + count, tiles)):
        y, x = pixels(tile, W, TH, TW)
        v = depthwise(u, taps, y, x, k, H, W, C, pitch, N, False, SUM)
        g = read(gradient, y, x, c, H, W, C, C)
        m_total = product(tl.trans(g), v.to(u.dtype.element_ty), m_total, PRECISION)
        g_v = product(g, part, tl.zeros((TH * TW, BK), SUM), PRECISION)
        t_total = taps_gradient(t_total, u, g_v, y, x, k, H, W, C, pitch)
        write(out, y, x, k, H, W, C, out_pitch, g_v)

    share += image * tl.num_programs(1)
    tl.store(g_matrix + share * C * C + place, m_total, there)
    write_taps(g_taps + share * 9 * C, t_total, k, C, C)


def attention_output_backward(
    v: Tensor, taps: Tensor, matrix: Tensor, gradient: Tensor, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `attention_output`; that of x is ``gradient`` itself.

    Args:
        v: (B, H, W, C), v before its depthwise convolution: the last third of u.
        taps: (9, 3C) of the whole convolution.
        matrix: (B, C, C), of ``v``'s type.
        gradient: (B, H, W, C) of the output, contiguous.
        out: (B, H, W, C) gets the gradient of v behind its convolution.

    Returns:
        Of the matrix (B, C, C) and of v's taps (9, C), float32 or better.
    """
    batch, height, width, channels = gradient.shape
    held = power(channels)
    rows = rows_for(held)
    at_once = chunk(rows)
    count = tiles(gradient, rows)
    chunks = triton.cdiv(channels, at_once)
    parts = shares(count, chunks * batch, batch * channels**2, gradient.numel())
    kind = sums_in(v.dtype)
    g_matrix = torch.empty((batch, parts, channels, channels), dtype=kind, device=v.device)
    g_taps = torch.empty((batch * parts, 9, channels), dtype=kind, device=v.device)
    _attention_output_backward[(chunks, parts, batch)](
        v, taps[:, -channels:], matrix, gradient, out, g_matrix, g_taps,
        height, width, pitch(v), pitch(out), count, channels, taps.shape[1],
        BC=held, BK=at_once, TH=rows, TW=TILE_WIDTH, **options(v.dtype, held),
    )  # fmt: skip
    return g_matrix.sum(1), g_taps.sum(0)
