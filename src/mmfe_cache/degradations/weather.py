"""Rain and snow: specks that one wind drives across the whole picture, or published masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .fields import Field, FloatImage, Specks, size_factor, smeared_specks, smooth_noise
from .maps import Choice, mask_amount, read_covering

SEVERITY = (0.5, 1.0)
"""The range drawn for a set; CDD11's masks of rain and snow are files without parameters."""

VARIED_SEVERITY = (0.2, 1.0)
"""The range drawn for varied weather, which is to hold drizzle too."""

FULL_AMOUNT = 0.06
"""Mean of a mask, in [0, 1], that counts as severity 1: that of the heaviest streak renderings of
Garg and Nayar (from which CDD11's rain comes), and about that of the heaviest procedural fall."""


MOST_ZOOM = 2.5
"""How much a mask is magnified at most in varied weather."""


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


def _streaks(length: float, scale: float) -> tuple[Specks, ...]:
    """Three depths of rain."""
    return (
        Specks(0.012, 3.5 * length * scale, 0.55, 0.10, 0.30),
        Specks(0.0032, 7.0 * length * scale, 0.65 * scale, 0.20, 0.55),
        Specks(0.0006, 15.0 * length * scale, 0.95 * scale, 0.25, 0.60),
    )


def _flakes(motion: float, scale: float) -> tuple[Specks, ...]:
    """Four sizes of flakes, the near ones large, blurred and smeared by their fall."""
    return (
        Specks(0.010, 0.7 * motion, 0.7, 0.15, 0.55),
        Specks(0.0030, 1.1 * motion * scale, 1.1 * scale, 0.5, 1.1),
        Specks(0.0008, 2.0 * motion * scale, 1.9 * scale, 0.6, 1.5),
        Specks(0.00010, 4.6 * motion * scale, 4.2 * scale, 0.35, 0.9),
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


def apply_rain(
    image: FloatImage,
    severity: float,
    rng: np.random.Generator,
    clean: FloatImage,
    choice: Choice,
) -> tuple[FloatImage, dict[str, float]]:
    """Add a mask of streaks: clip(I + M) (OneRestore, syn_data; procedural masks are ours).

    Severity is the share of the heaviest rain's streaks, and dims the rest of them: at 0 there
    is none. A published mask is scaled to its severity, see `mask_severity`.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation; not needed here.
        choice: a mask, or standard or varied weather.

    Returns:
        The picture, and the raw parameters.
    """
    del clean
    if choice.mask is not None:
        mask, strength = _published(choice, image, severity, rng)
        parameters = {"strength": strength}
    else:
        kind = _varied_rain(rng) if choice.varied else RAIN
        fall = draw_fall(rng, image.shape, severity, kind)
        brightness = fall.strength * (0.4 + 0.6 * severity) if severity > 0 else 0.0
        mask = np.minimum(fall.mask * np.float32(brightness), np.float32(0.9))
        parameters = {"density": severity, "angle": fall.angle, "brightness": brightness}
    return np.clip(image + mask[:, :, None], 0, 1), parameters


def apply_snow(
    image: FloatImage,
    severity: float,
    rng: np.random.Generator,
    clean: FloatImage,
    choice: Choice,
) -> tuple[FloatImage, dict[str, float]]:
    """Cover with flakes: I (1 - M) + M (OneRestore, syn_data; procedural masks are ours).

    Severity is the share of the heaviest snow's flakes: at 0 there is none.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        severity: in [0, 1].
        rng: the stream.
        clean: the picture before any degradation; not needed here.
        choice: a mask, or standard or varied weather.

    Returns:
        The picture, and the raw parameters.
    """
    del clean
    if choice.mask is not None:
        mask, strength = _published(choice, image, severity, rng)
        parameters = {"strength": strength}
    else:
        kind = _varied_snow(rng) if choice.varied else SNOW
        fall = draw_fall(rng, image.shape, severity, kind)
        # Peaks above 1 are cut off, which gives a flake its flat body.
        mask = np.minimum(fall.mask, np.float32(1)) * np.float32(fall.strength)
        parameters = {"density": severity, "angle": fall.angle, "opacity": fall.strength}
    mask = mask[:, :, None]
    return image * (1 - mask) + mask, parameters


def mask_severity(amount: float) -> float:
    """The severity of a published mask as it is: its mean against `FULL_AMOUNT`, 1 at most."""
    return min(1.0, amount / FULL_AMOUNT)


def _published(
    choice: Choice, image: FloatImage, severity: float, rng: np.random.Generator
) -> tuple[Field, float]:
    """A mask file over the whole picture, and the factor that brings it to ``severity``."""
    assert choice.mask is not None
    as_it_is = mask_severity(mask_amount(choice.mask))
    strength = severity / as_it_is if as_it_is > 0 else 0.0
    zoom = _between(rng, 1.0, MOST_ZOOM) if choice.varied else 1.0
    mask = read_covering(choice.mask, image.shape[:2], rng, zoom)
    return np.minimum(mask * np.float32(strength), np.float32(1)), strength


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


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform: as many halvings as doublings."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _varied_rain(rng: np.random.Generator) -> Falling:
    """Rain as it differs from picture to picture: drizzle, downpours, short and long exposures.

    A network trained on one procedural rain removes that rain and no other. So the number,
    length, width and brightness of streaks are drawn anew for every picture.
    """
    layers = tuple(
        (
            _between(rng, 0.1, 1.6) * layer.density,
            _between(rng, 0.4, 2.5) * layer.along,
            _between(rng, 0.7, 2.2) * layer.across,
            _between(rng, 0.5, 2.0),
        )
        for layer in _streaks(1.0, 1.0)
    )
    peaks = [(layer.low, layer.high) for layer in _streaks(1.0, 1.0)]
    size = _between(rng, 0.7, 1.6)

    def streaks(length: float, scale: float) -> tuple[Specks, ...]:
        return tuple(
            Specks(
                density, along * length * scale * size, across * size, low * bright, high * bright
            )
            for (density, along, across, bright), (low, high) in zip(layers, peaks, strict=True)
        )

    return Falling(
        slant=float(rng.uniform(5, 60)),
        motion=RAIN.motion,
        strength=(0.4, 1.1),
        layers=streaks,
        evenness=(float(rng.uniform(0.2, 0.9)), 0.8),
        cells=RAIN.cells,
    )


def _varied_snow(rng: np.random.Generator) -> Falling:
    """Snow as it differs from picture to picture: see `_varied_rain`.

    Flakes run from specks to blurred discs of many pixels, from frozen in the air to long smears,
    from transparent to flat white.
    """
    layers = tuple(
        (
            _between(rng, 0.15, 2.0) * layer.density,
            _between(rng, 0.7, 1.8) * layer.across,
            _between(rng, 0.5, 3.0),
        )
        for layer in _flakes(1.0, 1.0)
    )
    peaks = [(layer.low, layer.high) for layer in _flakes(1.0, 1.0)]
    size = _between(rng, 0.7, 1.6)
    smear = _between(rng, 1.0, 5.0)

    def flakes(motion: float, scale: float) -> tuple[Specks, ...]:
        wide = scale * size
        return tuple(
            Specks(
                density / size,
                max(0.5, across * wide) * (1 + (motion * smear - 1) / (1 + across / 2)),
                max(0.5, across * wide),
                low * bright,
                high * bright,
            )
            for (density, across, bright), (low, high) in zip(layers, peaks, strict=True)
        )

    fine = float(rng.uniform()) < 0.5
    return Falling(
        slant=float(rng.uniform(10, 80)),
        motion=(1.0, 1.6),
        strength=(0.45, 1.0),
        layers=flakes,
        evenness=(0.7, 0.6) if fine else (float(rng.uniform(0.3, 1.0)), 0.5),
        cells=SNOW.cells if fine else RAIN.cells,
    )
