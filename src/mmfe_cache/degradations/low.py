"""Low light: a darker illumination map and the sensor noise that comes with it."""

from __future__ import annotations

import numpy as np

from .draw import Applied, FloatImage
from .fields import Field, box_blur

GAMMA = (2.0, 3.0)
"""Published range of the illumination's exponent; 1 leaves the light as it is."""

NOISE = (0.03, 0.08)
"""Published range of the noise's standard deviation, on [0, 1]."""

SEVERITY = tuple((gamma - 1) / (GAMMA[1] - 1) for gamma in GAMMA)
"""The published range as severity: 0.5 to 1."""

_EPS = 0.01
_LUT_SIZE = 4096


def apply_low(
    image: FloatImage, severity: float, rng: np.random.Generator, clean: FloatImage
) -> Applied:
    """Darken and add noise: clip(R L^gamma + N(0, n)) with R = I / L (OneRestore, syn_data).

    L is the brightest channel, smoothed as an illumination map is, then refined by a 3x3 guided
    filter (eps 0.01) whose guide is the grey image. gamma = 1 + 2 severity. n is drawn from the
    published range; below the published severities it fades with the darkness.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation, where the light map comes from.
    """
    gamma = 1 + (GAMMA[1] - 1) * severity
    noise = float(rng.uniform(*NOISE)) * min(1.0, severity / SEVERITY[0])
    light = illumination(clean)
    # L^(gamma - 1) through a table: the same on every processor, and faster than a power.
    table = np.linspace(0, 1, _LUT_SIZE) ** (gamma - 1)
    index = np.rint(light * (_LUT_SIZE - 1)).astype(np.intp)
    darkening = table.astype(np.float32)[index]
    out = image * darkening[:, :, None]
    out += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise)
    return Applied(np.clip(out, 0, 1), {"gamma": gamma, "noise": noise})


def illumination(image: FloatImage) -> Field:
    """The light map L, (H, W) float32 in (0, 1]."""
    red, green, blue = image[:, :, 0], image[:, :, 1], image[:, :, 2]
    brightest = np.maximum(np.maximum(red, green), blue)
    size = max(3, min(image.shape[:2]) // 32)
    smooth = box_blur(brightest, size)
    grey = np.asarray(
        red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114), np.float32
    )
    return np.clip(_guided_filter(grey, np.maximum(smooth, grey)), np.float32(0.01), 1)


def _guided_filter(guide: Field, source: Field) -> Field:
    mean_guide, mean_source = box_blur(guide, 3), box_blur(source, 3)
    covariance = box_blur(guide * source, 3) - mean_guide * mean_source
    variance = box_blur(guide * guide, 3) - mean_guide * mean_guide
    slope = np.asarray(covariance / (variance + np.float32(_EPS)), np.float32)
    offset = np.asarray(mean_source - slope * mean_guide, np.float32)
    return box_blur(slope, 3) * guide + box_blur(offset, 3)
