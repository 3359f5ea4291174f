"""The depthwise 3×3 convolution by itself, as the kernels of `mmfe_restore.kernels` do it.

There it is a part of larger kernels; alone it can be timed beside cuDNN's, which says what its nine
shifted loads cost. Needs Triton.
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
def _convolved(
    x, taps, out, H, W, C: tl.constexpr, BC: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    TURNED: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64) * H * W * C
    row, column = pixels(tl.program_id(0), W, TH, TW)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    values = depthwise(x + image, taps, row, column, c, H, W, C, C, C, TURNED, SUM)
    write(out + image, row, column, c, H, W, C, C, values)


@triton.jit
def _gradient_of_taps(
    x, gradient, g_taps, H, W, tiles, C: tl.constexpr, BC: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    share, image = tl.program_id(0), tl.program_id(2)
    count = tl.cdiv(tiles, tl.num_programs(0))
    x += image.to(tl.int64) * H * W * C
    gradient += image.to(tl.int64) * H * W * C
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros((16, BC), SUM)
    for tile in range(share * count, min(share * count + count, tiles)):
        row, column = pixels(tile, W, TH, TW)
        g = read(gradient, row, column, c, H, W, C, C).to(SUM)
        total = taps_gradient(total, x, g, row, column, c, H, W, C, C)
    write_taps(g_taps + (image * tl.num_programs(0) + share) * 9 * C, total, c, C, C)


def convolve(x: Tensor, taps: Tensor, *, turned: bool = False) -> Tensor:
    """Each channel of ``x`` by itself, zeros beyond its border.

    Args:
        x: (B, H, W, C), contiguous.
        taps: (9, C), float32 or better.
        turned: the transposed convolution, which takes the gradient of the output to that of x.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = x.shape
    assert pitch(x) == channels
    rows = rows_for(1)
    at_once = chunk(rows)
    out = torch.empty_like(x)
    _convolved[(tiles(x, rows), triton.cdiv(channels, at_once), batch)](
        x, taps, out, height, width, channels, BC=at_once, TH=rows, TW=TILE_WIDTH, TURNED=turned,
        **options(x.dtype, at_once),
    )  # fmt: skip
    return out


def gradient_of_taps(x: Tensor, gradient: Tensor) -> Tensor:
    """That of the taps.

    Args:
        x: (B, H, W, C), contiguous: what was convolved.
        gradient: (B, H, W, C), contiguous: of the output.

    Returns:
        (9, C), float32 or better.
    """
    batch, height, width, channels = x.shape
    assert pitch(x) == pitch(gradient) == channels
    rows = rows_for(1)
    at_once = chunk(rows)
    count, chunks = tiles(x, rows), triton.cdiv(channels, at_once)
    parts = shares(count, batch * chunks, 9 * batch * channels, x.numel())
    g_taps = torch.empty((batch * parts, 9, channels), dtype=sums_in(x.dtype), device=x.device)
    _gradient_of_taps[(parts, chunks, batch)](
        x, gradient, g_taps, height, width, count, channels, BC=at_once, TH=rows, TW=TILE_WIDTH,
        **options(x.dtype, at_once),
    )  # fmt: skip
    return g_taps.sum(0)
