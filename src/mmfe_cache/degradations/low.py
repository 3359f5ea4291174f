"""Low light: a darker illumination map and the sensor noise that comes with it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmfe_cache.errors import DataError
from mmfe_cache.images import read_rgb8

from .fields import Field, FloatImage, box_blur
from .maps import Choice, read_fitting

GAMMA = (2.0, 3.0)
"""Published range of the illumination's exponent; 1 leaves the light as it is."""

NOISE = (0.03, 0.08)
"""Published range of the noise's standard deviation, on [0, 1]."""

SEVERITY = tuple((gamma - 1) / (GAMMA[1] - 1) for gamma in GAMMA)
"""The published range as severity: 0.5 to 1."""

VARIED_SEVERITY = (0.2, 1.0)
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
    published range; below the published severities it fades with the darkness.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation, where the light map comes from.
        choice: a real low-light photograph, a light map, or standard or varied low light.

    Returns:
        The picture, and the raw parameters.

    Raises:
        DataError: the real low-light photograph has another size.
    """
    if choice.dark is not None:
        return _photographed(choice, clean)
    gamma = 1 + (GAMMA[1] - 1) * severity
    fade = min(1.0, severity / SEVERITY[0])
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


def _photographed(choice: Choice, clean: FloatImage) -> tuple[FloatImage, dict[str, float]]:
    assert choice.dark is not None
    dark = read_rgb8(choice.dark)
    height, width = clean.shape[:2]
    # A set may hold shrunk photographs; the real dark one then shrinks with its scene.
    if abs(dark.shape[0] * width - dark.shape[1] * height) > max(dark.shape[:2]):
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
