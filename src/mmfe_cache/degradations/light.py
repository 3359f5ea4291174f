"""What light does: haze, whose airlight grows with the distance, and low light with its noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.errors import DataError
from mmfe_cache.images import read_noted

from .fields import Field, box_blur, smooth_noise, upsample
from .maps import Choice, FloatImage, read_fitting

BETA = (1.0, 2.0)
"""Published range of the scattering coefficient; 0 is clear air."""

AIRLIGHT = (0.6, 0.9)
"""Published range of the grey airlight."""

FARTHEST = 0.7
"""Published upper limit of the distance that enters the exponent."""

HAZE_SEVERITY = tuple(beta / BETA[1] for beta in BETA)
"""The published range as severity: 0.5 to 1."""

HAZE_VARIED_SEVERITY = (0.15, 1.0)
"""The range drawn for varied haze: a light mist too."""

VARIED_AIRLIGHT = (0.5, 1.0)
"""The airlight of varied haze, to which a slight tint is added."""

_DEPTH_BLUR = 22
"""Published side of the blur of the depth, in pixels of a 720-line image."""


def apply_haze(
    image: FloatImage,
    severity: float,
    rng: np.random.Generator,
    clean: FloatImage,
    choice: Choice,
) -> tuple[FloatImage, dict[str, float]]:
    """Veil: clip(I t + A (1 - t)), t = exp(-beta min(distance, 0.7)) (OneRestore, syn_data).

    beta = 2 severity. Varied haze may be tinted, reach farther, and lie otherwise in depth.
    The procedural distance comes from the clean picture. Arguments and result: see `Degradation`.
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
    blur = max(1, round(_DEPTH_BLUR * min(shape[:2]) / 720))
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
    step = max(1, round(_DEPTH_BLUR * min(shape) / 720))
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


GAMMA = (2.0, 3.0)
"""Published range of the illumination's exponent; 1 leaves the light as it is."""

NOISE = (0.03, 0.08)
"""Published range of the noise's standard deviation, on [0, 1]."""

LOW_SEVERITY = tuple((gamma - 1) / (GAMMA[1] - 1) for gamma in GAMMA)
"""The published range as severity: 0.5 to 1."""

LOW_VARIED_SEVERITY = (0.2, 1.0)
"""The range drawn for varied low light: dusk too."""

VARIED_NOISE = (0.003, 0.08)
"""The noise of varied low light, drawn log-uniformly: a good camera's hardly shows."""

UNDEREXPOSED = 2.5
"""Varied low light is underexposed by up to this many stops, beyond CDD11's darkest, half of the
time. Real low-light photographs are darker than CDD11's and have less noise."""

_EPS = 0.01
_LUT_SIZE = 4096


def apply_low(
    image: FloatImage,
    severity: float,
    rng: np.random.Generator,
    clean: FloatImage,
    choice: Choice,
) -> tuple[FloatImage, dict[str, float]]:
    """Darken and add noise: clip(R L^gamma + N(0, n)) with R = I / L (OneRestore, syn_data).

    L is the brightest channel, smoothed as an illumination map is, then refined by a 3x3 guided
    filter (eps 0.01) whose guide is the grey image. gamma = 1 + 2 severity. n is drawn from the
    published range; below the published severities it fades with the darkness. The light map comes
    from the clean picture. Arguments and result: see `Degradation`.

    Raises:
        DataError: the real low-light photograph has another size.
    """
    if choice.dark is not None:
        return _photographed(choice, clean)
    gamma = 1 + (GAMMA[1] - 1) * severity
    fade = min(1.0, severity / LOW_SEVERITY[0])
    if choice.varied:
        noise = float(np.exp(rng.uniform(*np.log(VARIED_NOISE)))) * fade
    else:
        noise = float(rng.uniform(*NOISE)) * fade
    light = illumination(clean) if choice.light is None else read_fitting(choice.light, image.shape)
    # L^(gamma - 1) through a table: the same on every processor, and faster than a power.
    table = np.linspace(0, 1, _LUT_SIZE) ** (gamma - 1)
    index = np.rint(light * (_LUT_SIZE - 1)).astype(np.intp)
    darkening = table.astype(np.float32)[index]
    out = image * darkening[:, :, None]
    parameters = {"gamma": gamma, "noise": noise}
    if choice.varied:
        stops = max(0.0, float(rng.uniform(-UNDEREXPOSED, UNDEREXPOSED))) * fade
        # White balance goes wrong in little light.
        tint = 1 + rng.uniform(-0.06, 0.06, 3).astype(np.float32) * np.float32(fade)
        out = out * (tint * np.float32(2.0**-stops))
        parameters["stops"] = stops
    out += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise)
    return np.clip(out, 0, 1), parameters


def same_proportions(dark: tuple[int, ...], clean: tuple[int, ...]) -> bool:
    """Whether a low-light photograph, (H, W, ...), has its scene's proportions, to a pixel.

    A set may hold shrunk photographs; the real dark one then shrinks with its scene.
    """
    return abs(dark[0] * clean[1] - dark[1] * clean[0]) <= max(dark[:2])


def _photographed(choice: Choice, clean: FloatImage) -> tuple[FloatImage, dict[str, float]]:
    assert choice.dark is not None
    dark, _ = read_noted(choice.dark)  # `DegradationConfig.check` tells of its notes, once
    height, width = clean.shape[:2]
    if not same_proportions(dark.shape, clean.shape):
        raise DataError(
            f"the low-light photograph {choice.dark} has another shape than its scene",
            got=f"{dark.shape[1]}x{dark.shape[0]} pixels",
            expected=f"{width}x{height}, or the same proportions",
        )
    if dark.shape != clean.shape:
        dark = Image.fromarray(dark).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(dark, np.float32) / np.float32(255), {}


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
