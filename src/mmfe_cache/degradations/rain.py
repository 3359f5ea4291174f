"""Rain: bright streaks in three depths, all driven by one wind."""

from __future__ import annotations

import numpy as np

from .draw import Applied, FloatImage
from .falling import Falling, draw_fall
from .fields import Specks


def _streaks(length: float, scale: float) -> tuple[Specks, ...]:
    return (
        Specks(0.012, 3.5 * length * scale, 0.55, 0.10, 0.30),
        Specks(0.0032, 7.0 * length * scale, 0.65 * scale, 0.20, 0.55),
        Specks(0.0006, 15.0 * length * scale, 0.95 * scale, 0.25, 0.60),
    )


RAIN = Falling(
    slant=25.0,
    motion=(0.7, 1.3),
    strength=(0.75, 1.0),
    layers=_streaks,
    evenness=(0.6, 0.8),
    # Rain comes in sheets: its strength varies slowly over the picture.
    cells=lambda _: 3,
)
"""The heaviest rain."""


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
    fall = draw_fall(rng, image.shape, severity, RAIN)
    brightness = fall.strength * (0.4 + 0.6 * severity) if severity > 0 else 0.0
    mask = np.minimum(fall.mask * np.float32(brightness), np.float32(0.9))
    out = np.clip(image + mask[:, :, None], 0, 1)
    return Applied(out, {"density": severity, "angle": fall.angle, "brightness": brightness})
