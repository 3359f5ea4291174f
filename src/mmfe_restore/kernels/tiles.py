"""What the kernels have in common: tiles of pixels, maps seen through a convolution, LayerNorm.

A map is (B, H, W, C) with its channels side by side in memory; ``pitch`` is the distance from one
pixel to the next, larger than C where the map is a part of a wider one. Inside a kernel a map is
the pointer to one image of it, and a tile is (pixels, channels). Sides of tiles are powers of two:
what lies outside the map, or beyond its C channels, is read as zero and not written.

Sums are float32 (float64 for float64 maps); factors of products are of the maps' own type.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def pixels(tile, W, TH: tl.constexpr, TW: tl.constexpr):
    """Rows and columns, (TH · TW) each, of the ``tile``-th tile of an image that is W wide."""
    across = tl.cdiv(W, TW)
    at = tl.arange(0, TH * TW)
    return tile // across * TH + at // TW, tile % across * TW + at % TW


@triton.jit
def places(y, x, c, W, pitch):
    """Where in an image the channels ``c`` of the pixels (``y``, ``x``) lie."""
    return (y * W + x).to(tl.int64)[:, None] * pitch + c[None, :]


@triton.jit
def inside(y, x, c, H, W, C):
    """Which of them there are."""
    return ((y >= 0) & (y < H) & (x >= 0) & (x < W))[:, None] & (c < C)[None, :]


@triton.jit
def read(image, y, x, c, H, W, C, pitch):
    """The tile of ``image`` at (``y``, ``x``) and the channels ``c``."""
    return tl.load(image + places(y, x, c, W, pitch), inside(y, x, c, H, W, C), 0.0)


@triton.jit
def write(image, y, x, c, H, W, C, pitch, values):
    """Put ``values`` there, in the map's type."""
    values = values.to(image.dtype.element_ty)
    tl.store(image + places(y, x, c, W, pitch), values, inside(y, x, c, H, W, C))


@triton.jit
def shifted(at, y, x, down, right, there, H, W, pitch):
    """What lies ``down`` and ``right`` of the pixels (``y``, ``x``), whose places are ``at``."""
    y, x = y + down, x + right
    here = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return tl.load(at + (down * W + right) * pitch, here[:, None] & there[None, :], 0.0)


@triton.jit
def depthwise(image, taps, y, x, c, H, W, C, pitch, N, TURNED: tl.constexpr, SUM: tl.constexpr):
    """Depthwise 3×3 convolution of the tile: Σ taps[i, j, c] · image[y + i - 1, x + j - 1, c].

    ``taps`` is (3, 3, N) from the tile's channels on. TURNED makes it the transposed convolution,
    which takes the gradient of the output to that of the input:
    Σ taps[i, j, c] · image[y - i + 1, x - j + 1, c].
    """
    at, there = image + places(y, x, c, W, pitch), c < C
    total = tl.zeros((y.shape[0], c.shape[0]), SUM)
    for i in range(3):  # a loop, not unrolled: nine loads at once would fill the registers
        for j in tl.static_range(3):
            tap = tl.load(taps + (3 * i + j) * N + c, there, 0.0)
            if TURNED:
                total += tap[None, :] * shifted(at, y, x, 1 - i, 1 - j, there, H, W, pitch)
            else:
                total += tap[None, :] * shifted(at, y, x, i - 1, j - 1, there, H, W, pitch)
    return tl.where(((y < H) & (x < W))[:, None], total, 0.0)


@triton.jit
def taps_gradient(total, image, gradient, y, x, c, H, W, C, pitch):
    """``total`` (16, channels) plus the taps' gradient, of which the first nine rows are used.

    Σ over pixels of gradient[y, x, c] · image[y + i - 1, x + j - 1, c].
    """
    at, there = image + places(y, x, c, W, pitch), c < C
    row = tl.arange(0, 16)[:, None]
    for i in range(3):  # a loop, not unrolled: nine loads at once would fill the registers
        for j in tl.static_range(3):
            values = gradient * shifted(at, y, x, i - 1, j - 1, there, H, W, pitch)
            total += tl.where(row == 3 * i + j, tl.sum(values, 0)[None, :], 0.0)
    return total


@triton.jit
def write_taps(place, total, c, C, N):
    """Put the nine rows of `taps_gradient` to ``place``, (3, 3, N) from the tile's channels on."""
    row = tl.arange(0, 16)[:, None]
    tl.store(place + row * N + c[None, :], total, (row < 9) & (c < C)[None, :])


@triton.jit
def standardise(rows, c, C, EPS: tl.constexpr):
    """LayerNorm without scale and shift of (pixels, channels), and what each pixel was scaled by.

    ``rows`` are zero at the channels from C on, and stay so.
    """
    mean = tl.sum(rows, 1) / C
    centred = tl.where((c < C)[None, :], rows - mean[:, None], 0.0)
    spread = 1 / tl.sqrt(tl.sum(centred * centred, 1) / C + EPS)
    return centred * spread[:, None], spread


@triton.jit
def product(left, right, total, PRECISION: tl.constexpr):
    """``total`` + ``left`` @ ``right``."""
    if INTERPRETED:  # it multiplies the bits of bfloat16 as if they were integers
        left, right = left.to(total.dtype), right.to(total.dtype)
    return tl.dot(left, right, total, input_precision=PRECISION, out_dtype=total.dtype)


# On the host


def sums_in(dtype: torch.dtype) -> torch.dtype:
    """In what maps of ``dtype`` are summed up."""
    return torch.promote_types(dtype, torch.float32)


def options(dtype: torch.dtype, channels: int) -> dict[str, Any]:
    """What a kernel is launched with, for maps of ``dtype`` and a tile that holds ``channels``.

    The type of sums, how products are rounded, and 128 registers for each of 256 threads, so that
    two programs share a multiprocessor; the widest tiles need all registers for one. Loads go to
    registers (one stage): buffers for nine shifted tiles of a map would not fit shared memory.
    """
    rounded = dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return {
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": "tf32" if rounded else "ieee",
        "num_warps": 8,
        "num_stages": 1,
        "maxnreg": 128 if channels <= 256 else 255,
    }


def pitch(image: Tensor) -> int:
    """The distance between the pixels of a map (B, H, W, C).

    Raises:
        ValueError: its channels are not side by side, or its rows not one after the other.
    """
    between = image.stride(2)
    _, height, width, _ = image.shape
    expected = (height * width * between, width * between, between, 1)
    for length, found, needed in zip(image.shape, image.stride(), expected, strict=True):
        if length > 1 and found != needed:
            raise ValueError(f"a map's strides are {image.stride()}, expected {expected}")
    return between


def power(channels: int) -> int:
    """The side of a tile that holds ``channels``: a power of two, 16 at least."""
    return max(16, triton.next_power_of_2(channels))


TILE_WIDTH = 8
"""Columns of a tile of pixels."""


def rows_for(channels: int) -> int:
    """Rows of a tile of pixels whose sums, float32 for ``channels``, stay in registers."""
    return 8 if channels <= 128 else 4 if channels <= 512 else 2


def chunk(rows: int) -> int:
    """Channels of a map that are read at once with so many rows: 16 bytes by each thread."""
    return 2048 // (rows * TILE_WIDTH)


def tiles(image: Tensor, rows: int) -> int:
    """How many tiles of ``rows`` × `TILE_WIDTH` pixels an image of a map has."""
    return triton.cdiv(image.shape[1], rows) * triton.cdiv(image.shape[2], TILE_WIDTH)


def shares(work: int, others: int, sums: int, image: int) -> int:
    """Among how many programs to divide ``work`` tiles, each of which writes what it summed up.

    Enough for a card's multiprocessors, few enough that the sums are little beside the map.

    Args:
        work: tiles to divide.
        others: programs that there are for each share.
        sums: numbers that a share writes, all programs together.
        image: numbers of the map that is summed over.
    """
    return max(1, min(work, triton.cdiv(512, others), image // (8 * sums)))
