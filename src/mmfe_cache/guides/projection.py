"""A few numbers as tokens: random features, from which a linear map reads any smooth function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.seeds import generator


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
