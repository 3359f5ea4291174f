"""Random fields that the degradations are drawn with: specks smeared along a line, smooth noise.

Everything is computed in float64 and then rounded to a coarse grid, so that the last bit of a
transcendental function, which differs between processors, never reaches a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Field = NDArray[np.float32]
"""(H, W) float32."""

FloatImage = NDArray[np.float32]
"""(H, W, 3) float32 RGB in [0, 1]: what every degradation takes and gives."""

_GRID = 4096.0
"""Fields are rounded to multiples of 1/4096: finer than 8 bits, far coarser than float64."""


@dataclass(frozen=True, slots=True)
class Specks:
    """One layer of specks of about the same size.

    Attributes:
        density: specks per pixel.
        along: standard deviation along the direction of motion, in pixels.
        across: standard deviation across it, in pixels; below 0.5 the grid cannot show it.
        low: peak value of the faintest speck.
        high: peak value of the brightest speck.
    """

    density: float
    along: float
    across: float
    low: float
    high: float


def size_factor(shape: tuple[int, ...]) -> float:
    """How much larger a drop or flake is drawn than on a 512-pixel image.

    It grows with the square root of the shorter side: a large photograph shows a wider scene and
    more detail at once.
    """
    return float(np.clip((min(shape[:2]) / 512) ** 0.5, 0.6, 1.6))


def smeared_specks(
    rng: np.random.Generator,
    shape: tuple[int, int],
    layers: Sequence[Specks],
    angle: float,
    share: float = 1.0,
) -> Field:
    """The sum of layers of Gaussian specks, all smeared along ``angle``.

    Args:
        rng: the stream; the same number of values is drawn for every ``share``.
        shape: (H, W) of the field.
        layers: what to draw.
        angle: direction of motion in radians from the vertical.
        share: the part of every layer's specks that is kept; a larger share keeps the same ones
            and adds others, so the field grows continuously.

    Returns:
        (H, W) float32, at least 0, peaks as the layers ask where specks do not overlap.
    """
    padded = (_fast_length(shape[0]), _fast_length(shape[1]))
    rows, columns = _frequencies(padded)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    along *= along
    across *= across
    spectrum: NDArray[np.complex128] | None = None
    for layer in layers:
        impulses = _impulses(rng, padded, layer, share)
        if impulses is None:
            continue
        kernel = np.exp(-2 * np.pi**2 * (layer.along**2 * along + layer.across**2 * across))
        kernel *= 2 * np.pi * layer.along * layer.across
        kernel = kernel * fft.rfft2(impulses)
        spectrum = kernel if spectrum is None else spectrum + kernel
    if spectrum is None:
        return np.zeros(shape, np.float32)
    field = cast("NDArray[np.float64]", fft.irfft2(spectrum, s=padded))
    return _on_grid(np.maximum(field[: shape[0], : shape[1]], 0))


def _fast_length(length: int) -> int:
    return int(cast("int", fft.next_fast_len(length, real=True)))


@lru_cache(maxsize=8)
def _frequencies(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = np.fft.fftfreq(shape[0]).astype(np.float64)
    columns = np.fft.rfftfreq(shape[1]).astype(np.float64)
    return rows[:, None], columns[None, :]


def _impulses(
    rng: np.random.Generator, shape: tuple[int, int], layer: Specks, share: float
) -> NDArray[np.float64] | None:
    pixels = shape[0] * shape[1]
    count = max(1, round(layer.density * pixels))
    where = rng.integers(0, pixels, count)
    peaks = rng.uniform(layer.low, layer.high, count)
    kept = int(np.ceil(share * count)) if share > 0 else 0
    if kept == 0:
        return None
    sums = np.bincount(where[:kept], weights=peaks[:kept], minlength=pixels)
    return sums.astype(np.float64).reshape(shape)


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
    return _on_grid(total / weights)


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


def _on_grid(values: NDArray[np.float64]) -> Field:
    return (np.rint(values * _GRID) / _GRID).astype(np.float32)
