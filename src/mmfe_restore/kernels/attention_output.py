"""x' = x + v Mᵀ with v the depthwise convolution of u's last third.

M is the attention matrix with the 1×1 output convolution multiplied into it, one for each image
(`fold_output`), so that v is read once and never written.
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
