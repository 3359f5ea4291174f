"""What rain and snow share: specks that one wind drives across the whole picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .draw import size_factor
from .fields import Field, Specks, smeared_specks, smooth_noise

SEVERITY = (0.5, 1.0)
"""The range drawn for a set; CDD11's masks of rain and snow are files without parameters."""


@dataclass(frozen=True, slots=True)
class Falling:
    """A kind of weather that falls.

    Attributes:
        slant: largest angle of the fall from the vertical, in degrees.
        motion: range of how far specks are smeared along it, as a factor.
        strength: range of how strongly the mask shows, in [0, 1].
        layers: the heaviest fall's specks for a motion and a `size_factor`.
        evenness: least factor of the mask's slow variation, and what is added to it at most.
        cells: how many cells that variation has along the shorter side, from its length in pixels.
    """

    slant: float
    motion: tuple[float, float]
    strength: tuple[float, float]
    layers: Callable[[float, float], tuple[Specks, ...]]
    evenness: tuple[float, float]
    cells: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Fall:
    """One drawn fall.

    Attributes:
        mask: (H, W) float32, at least 0.
        angle: of the fall from the vertical, in degrees.
        strength: drawn from the kind's range.
    """

    mask: Field
    angle: float
    strength: float


def draw_fall(
    rng: np.random.Generator, image_shape: tuple[int, ...], severity: float, kind: Falling
) -> Fall:
    """Draw a mask of falling specks.

    Args:
        rng: the stream.
        image_shape: (H, W, ...).
        severity: in [0, 1]: the share of the heaviest fall's specks; a larger one keeps the same
            specks and adds others, and at 0 there is none.
        kind: what falls.
    """
    angle = float(rng.uniform(-kind.slant, kind.slant))
    motion = float(rng.uniform(*kind.motion))
    strength = float(rng.uniform(*kind.strength))
    layers = kind.layers(motion, size_factor(image_shape))
    shape = (image_shape[0], image_shape[1])
    mask = smeared_specks(rng, shape, layers, np.deg2rad(angle), share=severity)
    least, more = (np.float32(value) for value in kind.evenness)
    mask *= least + more * smooth_noise(rng, shape, kind.cells(min(shape)))
    return Fall(mask, angle, strength)
