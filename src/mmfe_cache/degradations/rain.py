"""Rain: bright streaks in three depths, all driven by one wind."""

from __future__ import annotations

import numpy as np

from .draw import Applied, FloatImage, size_factor
from .fields import Specks, smeared_specks, smooth_noise

SEVERITY = (0.5, 1.0)
"""The range drawn for a set; CDD11's streak masks are files without parameters."""

MAX_ANGLE = 25.0
"""Largest slant of the streaks from the vertical, in degrees."""


def apply_rain(
    image: FloatImage, severity: float, rng: np.random.Generator, clean: FloatImage
) -> Applied:
    """Add a mask of streaks: clip(I + M) (OneRestore, syn_data; the mask is procedural here).

    Severity is the share of the heaviest rain's streaks, and dims the rest of them: at 0 there
    is none.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation; not needed here.
    """
    del clean
    angle = float(rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    length = float(rng.uniform(0.7, 1.3))
    brightness = float(rng.uniform(0.75, 1.0))
    scale = size_factor(image.shape)
    layers = (
        Specks(0.012, 3.5 * length * scale, 0.55, 0.10, 0.30),
        Specks(0.0032, 7.0 * length * scale, 0.65 * scale, 0.20, 0.55),
        Specks(0.0006, 15.0 * length * scale, 0.95 * scale, 0.25, 0.60),
    )
    shape = (image.shape[0], image.shape[1])
    mask = smeared_specks(rng, shape, layers, np.deg2rad(angle), share=severity)
    # Rain comes in sheets: vary its strength slowly over the picture.
    mask *= np.float32(0.6) + np.float32(0.8) * smooth_noise(rng, shape, 3)
    strength = brightness * (0.4 + 0.6 * severity) if severity > 0 else 0.0
    mask = np.minimum(mask * np.float32(strength), np.float32(0.9))
    out = np.clip(image + mask[:, :, None], 0, 1)
    return Applied(out, {"density": severity, "angle": angle, "brightness": strength})
