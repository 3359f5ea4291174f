"""Snow: soft flakes of four sizes, the near ones large, blurred and smeared by their fall."""

from __future__ import annotations

import numpy as np

from .draw import Applied, FloatImage
from .falling import Falling, draw_fall
from .fields import Specks


def _flakes(motion: float, scale: float) -> tuple[Specks, ...]:
    return (
        Specks(0.010, 0.7 * motion, 0.7, 0.15, 0.55),
        Specks(0.0030, 1.1 * motion * scale, 1.1 * scale, 0.5, 1.1),
        Specks(0.0008, 2.0 * motion * scale, 1.9 * scale, 0.6, 1.5),
        Specks(0.00010, 4.6 * motion * scale, 4.2 * scale, 0.35, 0.9),
    )


SNOW = Falling(
    slant=40.0,
    motion=(1.0, 2.2),
    strength=(0.8, 1.0),
    layers=_flakes,
    evenness=(0.7, 0.6),
    # Fine noise frays the flakes' edges.
    cells=lambda side: max(4, side // 6),
)
"""The heaviest snow."""


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
    fall = draw_fall(rng, image.shape, severity, SNOW)
    # Peaks above 1 are cut off, which gives a flake its flat body.
    mask = np.minimum(fall.mask, np.float32(1)) * np.float32(fall.strength)
    mask = mask[:, :, None]
    out = image * (1 - mask) + mask
    return Applied(out, {"density": severity, "angle": fall.angle, "opacity": fall.strength})
