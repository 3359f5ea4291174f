"""A Transformer block's attention where a map is done strip by strip: sums, then matrices.

MDTA's matrix is as wide as the channels, and stands between a window's V and the output. A first
pass over the map adds up what it is made of, a second multiplies V by it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmfe_cache.machine import to_float64
from mmfe_restore.model.local_attention import cells, is_local, over_windows, segments
from mmfe_restore.model.parts import Part, Place, add_product, cast, product, projection
from mmfe_restore.model.restormer import (
    MDTA,
    CrossMDTA,
    LayerNorm,
    attention_matrix,
    fold_output,
    without_autocast,
)


def value_part(attn: MDTA, norm: LayerNorm, matrices: WindowMatrices, like: Tensor) -> Part:
    """For the second pass of x += MDTA(norm(x)): V times the windows' matrices."""
    asked = 2 * len(attn.project_out.weight)
    matrix, kernel = attn.qkv.weight.flatten(1)[asked:], attn.qkv_dwconv.weight[asked:]

    def use(rows: Tensor, convolved: Tensor, place: Place) -> None:
        add_attended(rows, convolved, matrices, attn.cell, place)

    return Part(len(kernel), projection(norm, matrix, like), cast(kernel, like), use)


def add_attended(
    rows: Tensor, values: Tensor, matrices: WindowMatrices, cell: int | None, place: Place
) -> None:
    """Add V times W_O · blockdiag(attention) to rows of a map.

    Args:
        rows: (n, W, C), written to.
        values: (n, W, C).
        matrices: of the windows, as `AttentionSums.matrices` gives them.
        cell: of `local_attention`; None where there is one window.
        place: of the rows.
    """
    if cell is None or matrices.windows == (1, 1):
        add_product(rows, values, matrices.rows(slice(0, 1))[0, 0])
        return
    height, width, channels = values.shape
    columns = segments(matrices.windows[1], cell, place.column, width)
    for down in segments(matrices.windows[0], cell, place.row, height, axis=-3):
        seen = matrices.rows(down.windows)
        # A row's matrices are fewer numbers than its pixels' products, while channels are few.
        by_rows = down.after is not None and channels <= cell
        if down.after is not None and by_rows:
            seen = torch.lerp(seen[0], seen[1], down.after[..., None].to(seen))  # (n, m', C, C)
        for across in columns:
            corners = seen[:, across.windows].flatten(1, 2)
            block = values[down.pixels, across.pixels]
            if by_rows:
                added = torch.bmm(block, corners.transpose(1, 2))
            else:
                added = product(block.contiguous(), corners.flatten(0, 1))
                added = _between(added, down.after)
            rows[down.pixels, across.pixels] += _between(added, across.after)


def _between(products: Tensor, after: Tensor | None) -> Tensor:
    """Of one window's products and the next one's, side by side, what lies between; or the one."""
    if after is None:
        return products
    before, behind = products.chunk(2, dim=-1)
    return torch.lerp(before, behind, after.to(products))


class AttentionSums:
    """QᵀK and the norms of Q and K, added up in float64 over the pixels of an image's cells.

    On the CPU where the device knows no float64 (MPS): strips are large there, so few sums travel.

    Args:
        attn: the attention; a map of one window is one cell.
        size: (H, W) of the map.
        device: where.
    """

    def __init__(self, attn: MDTA | CrossMDTA, size: tuple[int, int], device: torch.device) -> None:
        self._attn = attn
        heads, channels = attn.temperature.shape[0], len(attn.project_out.weight)
        self._shape = (heads, channels // heads)
        self._cell = attn.cell if is_local(attn.cell, *size) else None
        count = (1, 1) if self._cell is None else tuple(cells(one, self._cell) for one in size)
        products = (*count, *self._shape, self._shape[1])
        self._products = to_float64(torch.zeros(products, device=device))
        self._squares = to_float64(torch.zeros((*count, 2 * channels), device=device))

    def add(self, rows: Tensor, place: Place) -> None:
        """Count rows of Q and K side by side, (n, W, 2C)."""
        if self._cell is None:
            self._add(rows, 0, 0)
            return
        height, width = rows.shape[:2]
        counts = self._squares.shape[:2]
        for i, down in _cut(place.row, height, self._cell, counts[0]):
            for j, across in _cut(place.column, width, self._cell, counts[1]):
                self._add(rows[down, across], i, j)

    def _add(self, rows: Tensor, i: int, j: int) -> None:
        both = rows.flatten(0, 1)
        if both.dtype == torch.float16:  # sums over pixels overflow float16
            both = both.float()
        q, k = both.unflatten(-1, (2, *self._shape)).unbind(1)  # (P, h, d)
        with without_autocast(rows):  # which would cast the float32 back
            self._products[i, j] += to_float64(torch.bmm(q.permute(1, 2, 0), k.transpose(0, 1)))
        self._squares[i, j] += to_float64(_squares(both))

    def matrices(self, like: Tensor) -> WindowMatrices:
        """W_O · blockdiag(attention) of the windows, in the type of ``like``."""
        products, squares = self._products, self._squares
        if self._cell is not None:
            shape = products.shape[2:]
            products = over_windows(products.flatten(2)).unflatten(-1, shape)
            squares = over_windows(squares)
        return WindowMatrices(self._attn, products, squares, like)


class WindowMatrices:
    """W_O · blockdiag(attention) of every window, made when its row of windows is asked for.

    All of them at once would be 47 MB at the smallest maps of 12 megapixels.

    Args:
        attn: the attention.
        products: (m, m', h, d, d) QᵀK of the windows.
        squares: (m, m', 2C) the squares of Q and K.
        like: gives the type and place of the matrices.
    """

    def __init__(
        self, attn: MDTA | CrossMDTA, products: Tensor, squares: Tensor, like: Tensor
    ) -> None:
        self.windows = tuple(products.shape[:2])
        self._products, self._squares = products, squares
        self._temperature = to_float64(attn.temperature)
        self._weight = to_float64(attn.project_out.weight.flatten(1))
        self._like = like.new_empty(0)
        self._made: dict[int, Tensor] = {}

    def rows(self, windows: slice) -> Tensor:
        """Those of one or two rows of windows, (n, m', C, C); the last ones asked for are kept."""
        wanted = range(windows.start, windows.stop)
        self._made = {
            row: self._made[row] if row in self._made else self._fold(row) for row in wanted
        }
        return torch.stack(list(self._made.values()))

    def _fold(self, row: int) -> Tensor:
        products = self._products[row]
        norms = self._squares[row].sqrt().unflatten(-1, (2, *products.shape[1:3])).transpose(0, 1)
        attention = attention_matrix(products, norms[0], norms[1], self._temperature)
        return fold_output(attention, self._weight).to(self._like.device, self._like.dtype)


def _cut(first: int, length: int, cell: int, count: int) -> Iterator[tuple[int, slice]]:
    """Divide ``length`` pixels from ``first`` at the borders of cells, each with its number.

    Where ``count`` is one, the whole side is one cell.
    """
    if count == 1:
        yield 0, slice(0, length)
        return
    last = first + length
    for index in range(first // cell, -(-last // cell)):
        start, stop = max(index * cell, first), min((index + 1) * cell, last)
        yield index, slice(start - first, stop - first)


def _squares(pixels: Tensor) -> Tensor:
    """Sums of the squares of (P, C) over the pixels, (C,) in float32 or better."""
    precise = torch.promote_types(pixels.dtype, torch.float32)
    if pixels.device.type == "cpu" and pixels.dtype == precise:
        # A quarter of `vector_norm`'s time, which does not use that channels lie together.
        return (pixels * pixels).sum(dim=0)
    return torch.linalg.vector_norm(pixels, dim=0, dtype=precise).square_()
