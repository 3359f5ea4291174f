"""Snow: soft flakes of four sizes, the near ones large, blurred and smeared by their fall."""

from __future__ import annotations

import numpy as np

from .draw import Applied, FloatImage, size_factor
from .fields import Specks, smeared_specks, smooth_noise

SEVERITY = (0.5, 1.0)
"""The range drawn for a set; CDD11's snow masks are files without parameters."""

MAX_ANGLE = 40.0
"""Largest slant of the fall from the vertical, in degrees."""


def apply_snow(
    image: FloatImage, severity: float, rng: np.random.Generator, clean: FloatImage
) -> Applied:
    """Cover with flakes: I (1 - M) + M (OneRestore, syn_data; the mask is procedural here).

    Severity is the share of the heaviest snow's flakes: at 0 there is none.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation; not needed here.
    """
    del clean
    angle = float(rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    motion = float(rng.uniform(1.0, 2.2))
    opacity = float(rng.uniform(0.8, 1.0))
    scale = size_factor(image.shape)
    layers = (
        Specks(0.010, 0.7 * motion, 0.7, 0.15, 0.55),
        Specks(0.0030, 1.1 * motion * scale, 1.1 * scale, 0.5, 1.1),
        Specks(0.0008, 2.0 * motion * scale, 1.9 * scale, 0.6, 1.5),
        Specks(0.00010, 4.6 * motion * scale, 4.2 * scale, 0.35, 0.9),
    )
    shape = (image.shape[0], image.shape[1])
    mask = smeared_specks(rng, shape, layers, np.deg2rad(angle), share=severity)
    # Peaks above 1 are cut off, which gives a flake its flat body; fine noise frays its edge.
    mask *= np.float32(0.7) + np.float32(0.6) * smooth_noise(rng, shape, max(4, min(shape) // 6))
    mask = np.minimum(mask, np.float32(1)) * np.float32(opacity)
    mask = mask[:, :, None]
    out = image * (1 - mask) + mask
    return Applied(out, {"density": severity, "angle": angle, "opacity": opacity})
