"""Rows of a map, for the network in strips: walked down a strip at a time, and multiplied.

torch hands float32 products on a CPU to MKL, which leaves half of the vector unit of some
processors idle; oneDNN's convolution does not. So float32 rows on a CPU are convolved, and
everything else is multiplied. `benchmarks/restore_speed.py` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfe_restore.model.layers import to_nchw, to_nhwc

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
