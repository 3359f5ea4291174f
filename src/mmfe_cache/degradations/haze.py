"""Haze: airlight that grows with a procedural depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .fields import Field, FloatImage, box_blur, smooth_noise, upsample
from .maps import Choice, read_fitting

BETA = (1.0, 2.0)
"""Published range of the scattering coefficient; 0 is clear air."""

AIRLIGHT = (0.6, 0.9)
"""Published range of the grey airlight."""

FARTHEST = 0.7
"""Published upper limit of the distance that enters the exponent."""

SEVERITY = tuple(beta / BETA[1] for beta in BETA)
"""The published range as severity: 0.5 to 1."""

VARIED_SEVERITY = (0.15, 1.0)
"""The range drawn for varied haze: a light mist too."""

VARIED_AIRLIGHT = (0.5, 1.0)
"""The airlight of varied haze, to which a slight tint is added."""

_BLUR = 22
"""Published side of the blur of the depth, in pixels of a 720-line image."""

_LUT_SIZE = 4096


def apply_haze(
    image: FloatImage,
    severity: float,
    rng: np.random.Generator,
    clean: FloatImage,
    choice: Choice,
) -> tuple[FloatImage, dict[str, float]]:
    """Veil: clip(I t + A (1 - t)), t = exp(-beta min(distance, 0.7)) (OneRestore, syn_data).

    beta = 2 severity. Varied haze may be tinted, reach farther, and lie otherwise in depth.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation, where the procedural distance comes from.
        choice: a depth map, or standard or varied haze.

    Returns:
        The picture, and the raw parameters.
    """
    beta = BETA[1] * severity
    airlight = float(rng.uniform(*(VARIED_AIRLIGHT if choice.varied else AIRLIGHT)))
    if choice.depth is not None:
        distance = _measured_distance(image.shape, choice)
    else:
        distance = procedural_distance(clean, rng)
    colour = np.full(3, airlight, np.float32)
    if choice.varied:
        distance = distance ** np.float32(rng.uniform(0.6, 1.6))
        colour = np.clip(colour + rng.uniform(-0.04, 0.04, 3).astype(np.float32), 0, 1)
    distance = np.minimum(distance, np.float32(FARTHEST))
    table = np.exp(-beta * np.linspace(0, 1, _LUT_SIZE)).astype(np.float32)
    through = table[np.rint(distance * (_LUT_SIZE - 1)).astype(np.intp)][:, :, None]
    veiled = np.clip(image * through + colour * (1 - through), 0, 1).astype(np.float32, copy=False)
    return veiled, {"beta": beta, "airlight": airlight}


def _measured_distance(shape: tuple[int, ...], choice: Choice) -> Field:
    """1 minus the blurred depth map: the published maps are bright near."""
    assert choice.depth is not None
    blur = max(1, round(_BLUR * min(shape[:2]) / 720))
    return 1 - box_blur(read_fitting(choice.depth, shape), blur)


def procedural_distance(image: FloatImage, rng: np.random.Generator) -> Field:
    """A plausible distance map for a photograph: 0 near, 1 far; smooth as the published one.

    Three cues: the ground runs away upwards to a horizon; bright, pale regions are far (the
    colour attenuation prior of Zhu et al., 2015); and broad random masses stand in the way.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        rng: the stream.

    Returns:
        (H, W) float32 in [0, 1].
    """
    shape = (image.shape[0], image.shape[1])
    horizon = float(rng.uniform(0.15, 0.55))
    tilt = float(rng.uniform(-0.15, 0.15))
    step = max(1, round(_BLUR * min(shape) / 720))
    small = _shrink(image, step)
    height, width = small.shape[:2]
    row = (np.arange(height) + 0.5)[:, None] / height
    column = (np.arange(width) + 0.5)[None, :] / width
    drop = row + tilt * (column - 0.5) - horizon
    ground = np.where(drop <= 0, 1.0, 1.0 / (1.0 + 3.5 * np.maximum(drop, 0)))
    brightest, darkest = small.max(axis=2), small.min(axis=2)
    saturation = (brightest - darkest) / np.maximum(brightest, 0.05)
    pale = np.clip(0.12 + 0.96 * brightest - 0.78 * saturation, 0, 1)
    masses = smooth_noise(rng, (height, width), 3, octaves=3)
    distance = 0.6 * ground + 0.25 * pale + 0.35 * (masses - 0.5)
    distance = upsample(np.clip(distance, 0, 1), shape)
    return (np.rint(distance * _LUT_SIZE) / _LUT_SIZE).astype(np.float32)


def _shrink(image: FloatImage, step: int) -> NDArray[np.float64]:
    # Block means at the scale of the published blur: blurring and then sampling, in one go.
    height, width = max(1, image.shape[0] // step), max(1, image.shape[1] // step)
    rows = np.linspace(0, image.shape[0], height, endpoint=False).astype(np.intp)
    columns = np.linspace(0, image.shape[1], width, endpoint=False).astype(np.intp)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, 0), columns, 1)
    tall = np.diff(rows, append=image.shape[0]).astype(np.float64)[:, None, None]
    wide = np.diff(columns, append=image.shape[1]).astype(np.float64)[None, :, None]
    return sums / (tall * wide)
