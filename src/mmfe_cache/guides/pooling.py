"""How tokens become the 17 of an embedding, and how a few numbers do."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmfe_cache.seeds import generator

GRID = 4
"""Image tokens are pooled to a GRID × GRID raster."""


def pool_grid(tokens_BThwD: Tensor) -> Tensor:
    """Pool a raster of tokens.

    Args:
        tokens_BThwD: (B, h, w, D), any floating type; h and w at least 1.

    Returns:
        (B, 17, D) float32, float64 for such: token 0 the exact mean, tokens 1 to 16 the adaptive
        average over a 4×4 raster, row by row. Summed in float32 at least.
    """
    raster = tokens_BThwD.permute(0, 3, 1, 2)
    raster = raster if raster.dtype == torch.float64 else raster.float()
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


class Projection:
    """T tokens that each say K numbers s in their own way: √2 tanh(s W + b).

    W and b are drawn once and for all. What reads tokens through linear maps and attention (MGFB)
    gets T·D different functions of them, of about unit variance.

    Args:
        seed_parts: what W and b are drawn from.
        inputs: K.
        tokens: T.
        dim: D.

    Attributes:
        weights: W, (K, T·D).
        bias: b, (T·D,).
    """

    def __init__(
        self, seed_parts: tuple[str | int, ...], inputs: int, tokens: int, dim: int
    ) -> None:
        draw = generator(*seed_parts)
        self.weights: NDArray[np.float64] = draw.normal(0, 2.0, (inputs, tokens * dim))
        self.bias: NDArray[np.float64] = draw.normal(0, 0.7, tokens * dim)
        self._shape = (tokens, dim)

    def __call__(self, said_K: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K,) numbers of one sample, such as its severities, to its (T, D) tokens."""
        tokens = np.sqrt(2) * np.tanh(said_K @ self.weights + self.bias)
        return tokens.reshape(self._shape)
