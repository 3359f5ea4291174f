"""From a guide's many tokens to the seventeen that are stored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 4
"""Image tokens are pooled to a GRID × GRID raster."""


def pool_grid(tokens_BThwD: Tensor) -> Tensor:
    """Pool a raster of tokens.

    Args:
        tokens_BThwD: (B, h, w, D), any floating type; h and w at least 1.

    Returns:
        (B, 17, D) float32: token 0 the exact mean, tokens 1 to 16 the adaptive average over a
        4×4 raster, row by row. Summed in float32 whatever the input.
    """
    raster = tokens_BThwD.float().permute(0, 3, 1, 2)
    cells = F.adaptive_avg_pool2d(raster, GRID).flatten(2).transpose(1, 2)
    return torch.cat([raster.mean(dim=(2, 3))[:, None], cells], dim=1)


def pool_sequence(tokens_BTD: Tensor) -> Tensor:
    """Pool a sequence of tokens.

    Args:
        tokens_BTD: (B, T, D), any floating type, T at least 1.

    Returns:
        (B, 17, D) float32: token 0 the exact mean, tokens 1 to 16 the adaptive average over
        sixteen runs of the sequence, in order.
    """
    sequence = tokens_BTD.float().transpose(1, 2)
    runs = F.adaptive_avg_pool1d(sequence, GRID * GRID).transpose(1, 2)
    return torch.cat([sequence.mean(dim=2)[:, None], runs], dim=1)
