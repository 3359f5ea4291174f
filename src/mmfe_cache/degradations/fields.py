"""Smooth random fields, the same on every processor.

They are computed in float64 and then rounded to a coarse grid, so that the last bit of a
transcendental function, which differs between processors, never reaches a pixel.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]
"""(H, W) float32."""

_GRID = 4096.0
"""Fields are rounded to multiples of 1/4096: finer than 8 bits, far coarser than float64."""


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 1
) -> Field:
    """Value noise: random numbers on a grid, smoothly interpolated; octaves halve in weight.

    Args:
        rng: the stream.
        shape: (H, W) of the field.
        cells: grid cells along the shorter side in the first octave.
        octaves: how many grids, each twice as fine.

    Returns:
        (H, W) float32 in [0, 1].
    """
    total = np.zeros(shape, np.float64)
    weights = 0.0
    short = min(shape)
    for octave in range(octaves):
        side = cells * 2**octave
        grid = rng.random((side * shape[0] // short + 2, side * shape[1] // short + 2))
        weight = 0.5**octave
        total += weight * upsample(grid, shape)
        weights += weight
    return on_grid(total / weights)


def upsample(grid: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate ``grid`` to ``shape`` with smoothstep weights, corner on corner."""
    top, down = _steps(grid.shape[0], shape[0])
    left, right = _steps(grid.shape[1], shape[1])
    wide = grid.astype(np.float64)
    wide = wide[:, left] + (wide[:, np.minimum(left + 1, grid.shape[1] - 1)] - wide[:, left]) * (
        right
    )
    low = wide[np.minimum(top + 1, grid.shape[0] - 1)]
    high = wide[top]
    return high + (low - high) * down[:, None]


def _steps(cells: int, pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    position = np.linspace(0, max(cells - 1, 0), pixels)
    base = np.minimum(position.astype(np.intp), max(cells - 2, 0))
    fraction = position - base
    return base, fraction * fraction * (3 - 2 * fraction)


def box_blur(field: Field, size: int) -> Field:
    """Mean over a ``size`` x ``size`` window with repeated edges (summed in float64).

    Args:
        field: (H, W).
        size: side of the window in pixels, odd or even.
    """
    return cast("Field", ndimage.uniform_filter(field, size, mode="nearest"))


def on_grid(values: NDArray[np.float64]) -> Field:
    """Values rounded to 1/4096, so that a processor's last bit never reaches a pixel."""
    return (np.rint(values * _GRID) / _GRID).astype(np.float32)
