"""1×1 convolutions of rows as matrix products, by the faster of two kernels.

torch hands float32 products on a CPU to MKL, which leaves half of the vector unit of some
processors idle; oneDNN's convolution does not. So float32 rows on a CPU are convolved, and
everything else is multiplied. `benchmarks/restore_speed.py` measures both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfe_restore.model.layers import to_nchw, to_nhwc


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
