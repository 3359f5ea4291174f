"""Parts of the network as strips of rows run them: what is projected, convolved and added.

A part sees one row above and below. `strips` runs it over a map that lies in memory, in place;
`streaming` over rows that come and go.

torch hands float32 products on a CPU to MKL, which leaves half of the vector unit of some
processors idle; oneDNN's convolution does not. So float32 rows on a CPU are convolved, and
everything else is multiplied. `benchmarks/restore_speed.py` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfe_cache.machine import to_float64
from mmfe_restore.model.local_attention import cells, is_local, over_windows, segments
from mmfe_restore.model.mgfb import MGFB
from mmfe_restore.model.restormer import (
    GDFN,
    MDTA,
    CrossMDTA,
    LayerNorm,
    attention_matrix,
    fold_output,
    to_nchw,
    to_nhwc,
    without_autocast,
)

Fill = Callable[[int, int, Tensor], None]
"""``fill(first, last, out)`` writes rows first..last of the input, (last - first, W, K)."""


def rolling_rows(
    size: tuple[int, int], channels: int, fill: Fill, *, rows: int, like: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Walk down an image in strips, with the one row above and below that a 3×3 kernel needs.

    Rows outside the image are zero, as zero padding wants them. Row r + 1 is filled before
    strip ..r is handed out, and never again: the caller may write over rows of the strip that
    it holds even where ``fill`` reads from the same map.

    Args:
        size: (H, W).
        channels: K.
        fill: computes rows of the convolution's input.
        rows: height of a strip, at least 2.
        like: gives device and dtype.

    Yields:
        The strip's rows, and a (rows + 2, W, K) buffer that is valid until the next step.
    """
    height, width = size
    rows = min(rows, height)  # a buffer larger than the image would be of no use
    buffer = like.new_empty((rows + 2, width, channels))
    buffer[0].zero_()
    ready = 0
    for first in range(0, height, rows):
        last = min(first + rows, height)
        if first:
            buffer[:2].copy_(buffer[rows : rows + 2])
        wanted = min(last + 1, height)
        if wanted > ready:
            fill(ready, wanted, buffer[ready - first + 1 : wanted - first + 1])
            ready = wanted
        if last == height:
            buffer[last - first + 1].zero_()
        yield slice(first, last), buffer[: last - first + 2]


def rows_within(budget: int, width: int, channels: int, like: Tensor) -> int:
    """How many rows of ``width`` × ``channels`` fit into ``budget`` bytes; at least 2."""
    return max(2, budget // (width * channels * like.element_size()))


def convolve_rows(buffer: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3×3 convolution of a buffer of `rolling_rows`: (n + 2, W, K) to (n, W, K').

    Depthwise where ``weight`` is (K, 1, 3, 3).
    """
    groups = buffer.shape[2] // weight.shape[1]
    # The batch axis comes first: only its stride then tells torch that this is channels-last.
    nchw = to_nchw(buffer[None])
    return to_nhwc(F.conv2d(nchw, weight, bias, padding=(0, 1), groups=groups))[0]


def product(rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """The 1×1 convolution ``matrix`` (K', K) of ``rows`` (n, W, K), plus ``bias``: (n, W, K').

    ``rows`` are contiguous, and so is the result.
    """
    if not _convolves(rows):
        return F.linear(rows, matrix, bias)
    # Not conv2d: on one thread it takes 1×1 kernels to a fallback of less than half this speed.
    # The batch axis comes first: only its stride then tells torch that this is channels-last.
    kernel = matrix[:, :, None, None]
    out = torch.mkldnn_convolution(to_nchw(rows[None]), kernel, bias, (0, 0), (1, 1), (1, 1), 1)
    return to_nhwc(out)[0]


def write_product(out: Tensor, rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> None:
    """Write `product` to ``out`` (n, W, K'), at best contiguous."""
    if _convolves(rows) or not out.is_contiguous():
        out.copy_(product(rows, matrix, bias))
        return
    flat, pixels = out.view(-1, len(matrix)), rows.reshape(-1, rows.shape[-1])
    if bias is None:
        torch.mm(pixels, matrix.t(), out=flat)
    else:
        torch.addmm(bias, pixels, matrix.t(), out=flat)


def add_product(out: Tensor, rows: Tensor, matrix: Tensor) -> None:
    """Add `product` to ``out`` (n, W, K'), which is contiguous."""
    if _convolves(rows):
        out.add_(product(rows, matrix))
    else:
        out.view(-1, len(matrix)).addmm_(rows.reshape(-1, rows.shape[-1]), matrix.t())


def _convolves(rows: Tensor) -> bool:
    on_cpu = rows.device.type == "cpu" and rows.dtype == torch.float32
    return on_cpu and torch.backends.mkldnn.is_available()


Projection = Callable[[Tensor, Tensor], None]
"""``project(rows, out)`` writes a 1×1 convolution of rows (n, W, C) to ``out`` (n, W, K)."""


class Place(NamedTuple):
    """Where rows lie on a map: their first row, and their first column."""

    row: int
    column: int = 0


class Part(NamedTuple):
    """A part of the network that sees one row above and below, and adds to its input.

    Attributes:
        channels: K, of the map that is convolved.
        project: makes that map's rows of the input's.
        kernel: of the 3×3 convolution.
        use: adds what was convolved, (n, W, K'), to rows (n, W, C), in place, at their place.
    """

    channels: int
    project: Projection
    kernel: Tensor
    use: Callable[[Tensor, Tensor, Place], None]


def gdfn_part(ffn: GDFN, norm: LayerNorm, like: Tensor) -> Part:
    """Add GDFN(norm(x)) to x.

    Args:
        ffn: the feed-forward network.
        norm: before it.
        like: gives the type to compute in.
    """
    matrix, kernel, output = ffn.aligned()
    kernel, output = cast(kernel, like), cast(output, like)

    def use(rows: Tensor, convolved: Tensor, _: Place) -> None:
        gate, value = convolved.chunk(2, dim=-1)
        add_product(rows, F.gelu(gate).mul_(value), output)

    return Part(len(kernel), projection(norm, matrix, like), kernel, use)


def fusion_parts(mgfb: MGFB, tokens: Tensor, like: Tensor) -> tuple[Part, Part]:
    """An MGFB: cross-attention (Eq. 2), then its feed-forward network.

    Args:
        mgfb: the block.
        tokens: (T, D) of one image.
        like: gives the type to compute in.
    """
    attn = mgfb.attn
    keys, values = attn.keys_values(tokens[None])
    # All heads in one product: the zeros between them cost less than h small products.
    ask, answer = cast(torch.block_diag(*keys[0]).t(), like), cast(values[0].t(), like)
    ask, answer = ask.contiguous(), answer.contiguous()

    def use(rows: Tensor, convolved: Tensor, _: Place) -> None:
        logits = product(convolved, ask)  # (n, W, h * T)
        weights = logits.unflatten(-1, (attn.heads, -1)).softmax(dim=-1).flatten(-2)
        add_product(rows, cast(weights, like), answer)

    matrix, kernel = attn.query.weight.flatten(1), cast(attn.query_dwconv.weight, like)
    asked = Part(len(kernel), projection(mgfb.norm1, matrix, like), kernel, use)
    return asked, gdfn_part(mgfb.ffn, mgfb.norm2, like)


def query_key_projection(attn: MDTA, norm: LayerNorm, like: Tensor) -> tuple[Projection, Tensor]:
    """For the first pass of x += MDTA(norm(x)): what makes Q and K, and their depthwise kernel."""
    asked = 2 * len(attn.project_out.weight)
    matrix, kernel = attn.qkv.weight.flatten(1)[:asked], attn.qkv_dwconv.weight[:asked]
    return projection(norm, matrix, like), cast(kernel, like)


def value_part(attn: MDTA, norm: LayerNorm, matrices: Tensor, like: Tensor) -> Part:
    """For the second pass of x += MDTA(norm(x)): V times the windows' matrices (m, m', C, C)."""
    asked = 2 * len(attn.project_out.weight)
    matrix, kernel = attn.qkv.weight.flatten(1)[asked:], attn.qkv_dwconv.weight[asked:]

    def use(rows: Tensor, convolved: Tensor, place: Place) -> None:
        add_attended(rows, convolved, matrices, attn.cell, place)

    return Part(len(kernel), projection(norm, matrix, like), cast(kernel, like), use)


def add_attended(
    rows: Tensor, values: Tensor, matrices: Tensor, cell: int | None, place: Place
) -> None:
    """Add V times W_O · blockdiag(attention) to rows of a map.

    Args:
        rows: (n, W, C), written to.
        values: (n, W, C).
        matrices: (m, m', C, C) of the windows, as `AttentionSums.folded` gives them.
        cell: of `local_attention`; None where there is one window.
        place: of the rows.
    """
    if cell is None or matrices.shape[:2] == (1, 1):
        add_product(rows, values, matrices[0, 0])
        return
    height, width, channels = values.shape
    columns = segments(matrices.shape[1], cell, place.column, width)
    for down in segments(matrices.shape[0], cell, place.row, height, axis=-3):
        seen = matrices[down.windows]
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

    def folded(self, like: Tensor) -> Tensor:
        """W_O · blockdiag(attention) of the windows, (m, m', C, C) of the type of ``like``."""
        products, squares = self._products.flatten(2), self._squares
        if self._cell is not None:
            products, squares = over_windows(products), over_windows(squares)
        temperature = to_float64(self._attn.temperature)
        weight = to_float64(self._attn.project_out.weight.flatten(1))
        rows: list[Tensor] = []
        for product, square in zip(products, squares, strict=True):  # float64 for one row at a time
            norms = square.sqrt().unflatten(-1, (2, *self._shape)).transpose(0, 1)
            product = product.unflatten(-1, self._products.shape[2:])
            attention = attention_matrix(product, norms[0], norms[1], temperature)
            rows.append(fold_output(attention, weight).to(like.device, like.dtype))
        return torch.stack(rows)


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


def projection(norm: LayerNorm | None, matrix: Tensor, like: Tensor) -> Projection:
    """The 1×1 convolution ``matrix`` of rows that ``norm`` normalised."""
    matrix, bias = (matrix, None) if norm is None else norm.folded(matrix)
    matrix, bias = cast(matrix, like).contiguous(), None if bias is None else cast(bias, like)

    def project(rows: Tensor, out: Tensor) -> None:
        write_product(out, rows if norm is None else norm.standardise(rows), matrix, bias)

    return project


def rows_of(x: Tensor, project: Projection) -> Fill:
    """Fill rows with what ``project`` makes of the rows of ``x``, (H, W, C)."""

    def fill(first: int, last: int, out: Tensor) -> None:
        project(x[first:last], out)

    return fill


def cast(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` in the type of ``like``."""
    return tensor.to(like.dtype)


def _squares(pixels: Tensor) -> Tensor:
    """Sums of the squares of (P, C) over the pixels, (C,) in float32 or better."""
    precise = torch.promote_types(pixels.dtype, torch.float32)
    if pixels.device.type == "cpu" and pixels.dtype == precise:
        # A quarter of `vector_norm`'s time, which does not use that channels lie together.
        return (pixels * pixels).sum(dim=0)
    return torch.linalg.vector_norm(pixels, dim=0, dtype=precise).square_()


def conv_of(body: nn.Sequential) -> nn.Conv2d:
    """The convolution of a change of resolution."""
    conv = body[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def convolve_slice(
    x: Tensor, weight: Tensor, first: int, last: int, bias: Tensor | None = None
) -> Tensor:
    """Rows first..last of a dense 3×3 convolution of (H, W, C), as (1, C', n, W).

    Bytes count as `unit` has them.
    """
    above, below = max(first - 1, 0), min(last + 1, len(x))
    rows = unit(to_nchw(x[above:below][None]), weight.dtype)
    # Padding is right at the image's own border and spoils a row elsewhere, which is cut off.
    out = F.conv2d(rows, weight, bias, padding=1)
    return out[:, :, first - above : last - above]


def doubled_rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first..last of (H, W, K) enlarged bilinearly to twice its sides, (last - first, 2W, K).

    Autocast gives float32.
    """
    above, below = max((first - 1) // 2, 0), min(last // 2 + 1, len(x))
    # As `convolve_slice`: what the cut spoils lies outside first..last.
    doubled = F.interpolate(to_nchw(x[above:below][None]), scale_factor=2, mode="bilinear")
    return to_nhwc(doubled)[0, first - 2 * above : last - 2 * above].contiguous()


def unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """``pixels`` in ``dtype``; bytes, 0 to 255, become 0 to 1."""
    return pixels.to(dtype).div_(255) if pixels.dtype == torch.uint8 else pixels.to(dtype)


def is_kept(x: Tensor, weight: Tensor) -> bool:
    """Whether a map was only put away in half precision, beside weights of full precision."""
    halved = x.dtype == torch.float16 and weight.dtype == torch.float32
    return halved and not torch.is_autocast_enabled(x.device.type)
