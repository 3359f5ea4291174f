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


def multiply_rows(rows: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Write the 1×1 convolution ``matrix`` (K', K) of ``rows`` (n, W, K) to ``out`` (n, W, K').

    All are contiguous.
    """
    if _convolves(rows):
        out.copy_(_convolved(rows, matrix))
    else:
        torch.mm(rows.reshape(-1, rows.shape[-1]), matrix.t(), out=out.view(-1, len(matrix)))


def add_product(out: Tensor, rows: Tensor, matrix: Tensor) -> None:
    """Add the 1×1 convolution ``matrix`` (K', K) of ``rows`` (n, W, K) to ``out`` (n, W, K').

    All are contiguous.
    """
    if _convolves(rows):
        out.add_(_convolved(rows, matrix))
    else:
        out.view(-1, len(matrix)).addmm_(rows.reshape(-1, rows.shape[-1]), matrix.t())


def _convolves(rows: Tensor) -> bool:
    on_cpu = rows.device.type == "cpu" and rows.dtype == torch.float32
    return on_cpu and torch.backends.mkldnn.is_available()


def _convolved(rows: Tensor, matrix: Tensor) -> Tensor:
    # The batch axis comes first: only its stride then tells torch that this is channels-last.
    return to_nhwc(F.conv2d(to_nchw(rows[None]), matrix[:, :, None, None]))[0]
