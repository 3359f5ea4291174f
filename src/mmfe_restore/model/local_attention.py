"""MDTA with sums over windows of a map, which pass smoothly into one another.

MDTA's matrix is made of sums over all pixels (Eq. 6). A network that was trained on crops meets
other sums on a photograph of many times their size: one matrix for a sky and a forest at once.
Sums over windows not much larger than the crops mend that (Chu et al., "Improving Image Restoration
by Revisiting Global Information Aggregation", ECCV 2022); here windows share most of what they sum,
and matrices are interpolated, so that nothing shows where they meet.

The map is divided into square cells. A window is `SPAN` by `SPAN` cells, moved inwards where it
would leave the map, and has one matrix, which holds at its middle; between the middles of four
windows a pixel's matrix is their bilinear interpolation, and beyond the outermost the nearest is
taken. A map of one window is attended whole, as in the paper.

Besides `restormer`'s letters: n cells along a side, m windows.
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SPAN = 3
"""Cells along a window's side."""


def cell_at(window: int | None, level: int) -> int | None:
    """The side of a cell on the map of a level, counted from 0.

    Args:
        window: ``model.attention_window``, in pixels of the image; None has no windows.
        level: of the network.
    """
    return None if window is None else window // SPAN >> level


def cells(length: int, cell: int) -> int:
    """The cells along a side (n), of which the last may be cut.

    A side of one window is one cell, however short or long: nothing is to be interpolated there.
    """
    return 1 if length <= SPAN * cell else -(-length // cell)


def is_local(cell: int | None, height: int, width: int) -> bool:
    """Whether a map of this size has more windows than one."""
    return cell is not None and max(height, width) > SPAN * cell


def over_windows(sums: Tensor) -> Tensor:
    """Sums over windows of sums over cells: (..., n, n', K) to (..., m, m', K)."""
    for axis in (-3, -2):
        if (windows := sums.shape[axis] - SPAN + 1) > 1:
            parts = [sums.narrow(axis, first, windows) for first in range(SPAN)]
            sums = reduce(torch.add, parts)  # without a copy of all of them
    return sums


class Segment(NamedTuple):
    """Pixels along a side between the middles of two windows.

    Attributes:
        pixels: of the rows or columns that were asked about.
        windows: the one before them and the one after; one alone beyond the outermost.
        after: how much a pixel takes of the second window's matrix, on the axis that was asked for;
            None where there is one window.
    """

    pixels: slice
    windows: slice
    after: Tensor | None


def segments(windows: int, cell: int, first: int, length: int, axis: int = -2) -> list[Segment]:
    """Divide ``length`` pixels from ``first`` at the middles of the windows.

    Args:
        windows: m, along this side of the map.
        cell: the side of a cell, even.
        first: of the pixels, on the map.
        length: how many.
        axis: of (H, W, C) on which the shares lie.
    """
    # The middle of window i lies before pixel middle + i * cell.
    middle, last = SPAN * cell // 2, first + length
    inside = range(middle, middle + (windows - 1) * cell + 1, cell)
    cuts = [first, *(cut for cut in inside if first < cut < last), last]
    found: list[Segment] = []
    for start, stop in pairwise(cuts):
        before = (start - middle) // cell
        if 0 <= before < windows - 1:
            place = torch.arange(start - middle, stop - middle, dtype=torch.float64)
            after = ((place - before * cell + 0.5) / cell).view(-1, *[1] * (-axis - 1))
            seen = slice(before, before + 2)
        else:
            nearest = min(max(before, 0), windows - 1)
            after, seen = None, slice(nearest, nearest + 1)
        found.append(Segment(slice(start - first, stop - first), seen, after))
    return found


def sums_of_cells(q: Tensor, k: Tensor, heads: int, cell: int) -> tuple[Tensor, Tensor, Tensor]:
    """QᵀK, and the squares of Q and of K, summed over the pixels of each cell.

    Args:
        q: (B, H, W, C).
        k: (B, H, W, C).
        heads: h.
        cell: the side of a cell.

    Returns:
        (B, n, n', h * d * d), and two times (B, n, n', C), in float32 or better.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    q, k = (_blocks(x, _sides(x, cell)) for x in (q, k))  # (B, n, n', P, C)
    q_square, k_square = (x.to(precise).square().sum(dim=3) for x in (q, k))
    q, k = (x.unflatten(-1, (heads, -1)).transpose(3, 4) for x in (q, k))  # (B, n, n', h, P, d)
    products = (q.transpose(-1, -2) @ k).to(precise).flatten(3)
    return products, q_square, k_square


class _Side(NamedTuple):
    """How a side is cut: ``blocks`` of ``length`` pixels, after ``before`` zeros."""

    length: int
    blocks: int
    before: int = 0


def _sides(x: Tensor, cell: int) -> list[_Side]:
    """The cells of (B, H, W, C)."""
    counts = [(length, cells(length, cell)) for length in x.shape[1:3]]
    return [_Side(length if count == 1 else cell, count) for length, count in counts]


def _blocks(x: Tensor, sides: list[_Side]) -> Tensor:
    """(B, H, W, C), with zeros around it, to (B, n, n', P, C): P pixels of each block."""
    (row, column), (height, width) = sides, x.shape[1:3]
    below = row.blocks * row.length - row.before - height
    right = column.blocks * column.length - column.before - width
    x = F.pad(x, (0, 0, column.before, right, row.before, below))  # from the last axis on
    x = x.unflatten(2, (column.blocks, column.length)).unflatten(1, (row.blocks, row.length))
    return x.transpose(2, 3).flatten(3, 4)


def attend_locally(v: Tensor, matrices: Tensor, cell: int) -> Tensor:
    """Each pixel of V times its interpolated matrix.

    Args:
        v: (B, H, W, C).
        matrices: (B, m, m', C, C) of the windows, as `fold_output` gives them.
        cell: the side of a cell, even.

    Returns:
        (B, H, W, C).
    """
    # Half a cell earlier than cells, so that a block lies between the middles of four.
    half, sides = cell // 2, _sides(v, cell)
    for axis, side in enumerate(sides):
        if side.blocks > 1:
            sides[axis] = _Side(cell, -(-(v.shape[1 + axis] + half) // cell), half)
    row, column = sides
    blocks = _blocks(v, sides)
    matrices = matrices.to(v.dtype).transpose(-1, -2)
    precise = torch.promote_types(v.dtype, torch.float32)
    after = ((torch.arange(cell, device=v.device, dtype=precise) + 0.5) / cell).to(v.dtype)
    down, across = (
        after.repeat_interleave(column.length)[:, None],
        after.repeat(row.length)[:, None],
    )

    def between(window: int) -> Tensor:
        """Of the windows that lie so many columns further, what lies between the rows."""
        there = _nearest(_nearest(matrices, 1, row, 0), 2, column, window)
        out = blocks @ there
        if row.before == 0:
            return out
        below = _nearest(_nearest(matrices, 1, row, 1), 2, column, window)
        return torch.lerp(out, blocks @ below, down)

    # Not a sum of four shares, which bfloat16 would round away from 1.
    out = between(0)
    if column.before:
        out = torch.lerp(out, between(1), across)
    whole = (
        out.unflatten(3, (row.length, column.length)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    )
    height, width = v.shape[1:3]
    return whole[:, row.before : row.before + height, column.before : column.before + width]


def _nearest(matrices: Tensor, axis: int, side: _Side, further: int) -> Tensor:
    """For each block along ``axis`` its window, or the one ``further`` on; the nearest there is.

    Windows stand at all cells but the outermost, and blocks begin half a cell before the first.
    """
    places = torch.arange(side.blocks, device=matrices.device) + further - 2
    return matrices.index_select(axis, places.clamp(0, matrices.shape[axis] - 1))
