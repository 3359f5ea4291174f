"""MDTA with sums over windows of a map, which pass smoothly into one another.

MDTA's matrix is made of sums over all pixels (Eq. 6). A network that was trained on crops meets
other sums on a photograph of many times their size: one matrix for a sky and a forest at once.
Sums over windows about as large as the crops mend that (Chu et al., "Improving Image Restoration
by Revisiting Global Information Aggregation", ECCV 2022); here windows share most of what they sum,
and matrices are interpolated, so that nothing shows where they meet.

The map is divided into square cells. A window is `SPAN` by `SPAN` cells, moved inwards where it
would leave the map, and has one matrix, which holds at its middle; between the middles of four
windows a pixel's matrix is their bilinear interpolation, and beyond the outermost the nearest is
taken. A map of one window is attended whole, as in the paper.

Besides `restormer`'s letters: n cells along a side, m windows.
"""

from __future__ import annotations

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
    """N: the cells along a side, of which the last may be cut; at least one window's."""
    return max(-(-length // cell), SPAN)


def is_local(cell: int | None, height: int, width: int) -> bool:
    """Whether a map of this size has more windows than one."""
    return cell is not None and max(height, width) > SPAN * cell


def over_windows(sums: Tensor) -> Tensor:
    """Sums over windows of sums over cells: (..., n, n', K) to (..., n - 2, n' - 2, K)."""
    for axis in (-3, -2):
        windows = sums.shape[axis] - SPAN + 1
        parts = [sums.narrow(axis, first, windows) for first in range(SPAN)]
        sums = torch.stack(parts).sum(dim=0)
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
    q, k = (_in_cells(x, cell) for x in (q, k))  # (B, n, n', P, C), zeros beyond the map
    q_square, k_square = (x.to(precise).square().sum(dim=3) for x in (q, k))
    q, k = (x.unflatten(-1, (heads, -1)).transpose(3, 4) for x in (q, k))  # (B, n, n', h, P, d)
    products = (q.transpose(-1, -2) @ k).to(precise).flatten(3)
    return products, q_square, k_square


def _in_cells(x: Tensor, cell: int, before: int = 0) -> Tensor:
    """(B, H, W, C) with ``before`` rows and columns of zeros in front to (B, n, n', cell², C)."""
    height, width = x.shape[1:3]
    count = [cells(length, cell) + (before > 0) for length in (height, width)]
    missing = [n * cell - length - before for n, length in zip(count, (height, width), strict=True)]
    x = F.pad(x, (0, 0, before, missing[1], before, missing[0]))  # from the last axis on
    x = x.unflatten(2, (count[1], cell)).unflatten(1, (count[0], cell))
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
    height, width = v.shape[1:3]
    precise = torch.promote_types(v.dtype, torch.float32)
    # Half a cell earlier, so that a block of pixels lies between the middles of four cells; windows
    # stand at all cells but the outermost, whose place, and one more, the nearest takes.
    blocks = _in_cells(v, cell, before=cell // 2)  # (B, n + 1, n' + 1, P, C)
    rows, columns = blocks.shape[1:3]
    nearest = [
        (torch.arange(count + 1, device=v.device) - 2).clamp(0, windows - 1)
        for count, windows in ((rows, matrices.shape[1]), (columns, matrices.shape[2]))
    ]
    spread = matrices.to(v.dtype).transpose(-1, -2)[:, nearest[0]][:, :, nearest[1]]
    after = ((torch.arange(cell, device=v.device, dtype=precise) + 0.5) / cell).to(v.dtype)
    shares = (1 - after, after)
    out: Tensor | None = None
    for down in range(2):
        for across in range(2):
            share = (shares[down][:, None] * shares[across]).flatten()[:, None]
            corner = spread[:, down : down + rows, across : across + columns]
            part = (blocks * share) @ corner
            out = part if out is None else out + part
    assert out is not None
    whole = out.unflatten(3, (cell, cell)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    half = cell // 2
    return whole[:, half : half + height, half : half + width]
