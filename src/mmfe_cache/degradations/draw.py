"""What every degradation takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
"""(H, W, 3) float32 RGB in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One degradation's result.

    Attributes:
        image: (H, W, 3) float32 in [0, 1].
        parameters: the raw parameters, in the published units.
    """

    image: FloatImage
    parameters: Mapping[str, float]


def size_factor(shape: tuple[int, ...]) -> float:
    """How much larger a drop or flake is drawn than on a 512-pixel image.

    It grows with the square root of the shorter side: a large photograph shows a wider scene and
    more detail at once.
    """
    return float(np.clip((min(shape[:2]) / 512) ** 0.5, 0.6, 1.6))
