"""Rain and snow: specks that one wind drives across the whole picture, or published masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .fields import Field, on_grid, smooth_noise
from .maps import Choice, FloatImage, mask_amount, read_covering

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
class Specks:
    """One layer of specks of about the same size.

    Attributes:
        density: specks per pixel.
        along: standard deviation along the direction of motion, in pixels.
        across: standard deviation across it, in pixels; below 0.5 the grid cannot show it.
        low: peak value of the faintest speck.
        high: peak value of the brightest speck.
    """

    density: float
    along: float
    across: float
    low: float
    high: float


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
        shown: mask, strength and severity to the mask as it shows, and its raw parameters.
    """

    slant: float
    motion: tuple[float, float]
    strength: tuple[float, float]
    layers: Callable[[float, float], tuple[Specks, ...]]
    evenness: tuple[float, float]
    cells: Callable[[int], int]
    shown: Callable[[Field, float, float], tuple[Field, dict[str, float]]]


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


def _shown_rain(mask: Field, strength: float, severity: float) -> tuple[Field, dict[str, float]]:
    brightness = strength * (0.4 + 0.6 * severity) if severity > 0 else 0.0
    return np.minimum(mask * np.float32(brightness), np.float32(0.9)), {"brightness": brightness}


def _shown_snow(mask: Field, strength: float, severity: float) -> tuple[Field, dict[str, float]]:
    del severity
    # Peaks above 1 are cut off, which gives a flake its flat body.
    return np.minimum(mask, np.float32(1)) * np.float32(strength), {"opacity": strength}


RAIN = Falling(
    slant=25.0,
    motion=(0.7, 1.3),
    strength=(0.75, 1.0),
    layers=_streaks,
    evenness=(0.6, 0.8),
    # Rain comes in sheets: its strength varies slowly over the picture.
    cells=lambda _: 3,
    shown=_shown_rain,
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
    shown=_shown_snow,
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
    is none. A published mask is scaled to its severity, see `mask_severity`. Arguments and
    result: see `Degradation`.
    """
    del clean
    mask, parameters = _draw_mask(image.shape, severity, rng, choice, RAIN, _varied_rain)
    return np.clip(image + mask, 0, 1), parameters


def apply_snow(
    image: FloatImage,
    severity: float,
    rng: np.random.Generator,
    clean: FloatImage,
    choice: Choice,
) -> tuple[FloatImage, dict[str, float]]:
    """Cover with flakes: I (1 - M) + M (OneRestore, syn_data; procedural masks are ours).

    Severity is the share of the heaviest snow's flakes: at 0 there is none. Arguments and result:
    see `Degradation`.
    """
    del clean
    mask, parameters = _draw_mask(image.shape, severity, rng, choice, SNOW, _varied_snow)
    return image * (1 - mask) + mask, parameters


def mask_severity(amount: float) -> float:
    """The severity of a published mask as it is: its mean against `FULL_AMOUNT`, 1 at most."""
    return min(1.0, amount / FULL_AMOUNT)


def _draw_mask(
    image_shape: tuple[int, ...],
    severity: float,
    rng: np.random.Generator,
    choice: Choice,
    kind: Falling,
    vary: Callable[[np.random.Generator], Falling],
) -> tuple[Field, dict[str, float]]:
    """What falls over a picture, (H, W, 1) float32 of at least 0, and its raw parameters.

    A larger severity keeps the same specks and adds others.
    """
    shape = (image_shape[0], image_shape[1])
    if choice.mask is not None:
        as_it_is = mask_severity(mask_amount(choice.mask))
        strength = severity / as_it_is if as_it_is > 0 else 0.0
        zoom = _between(rng, 1.0, MOST_ZOOM) if choice.varied else 1.0
        mask = read_covering(choice.mask, shape, rng, zoom)
        mask = np.minimum(mask * np.float32(strength), np.float32(1))
        return mask[:, :, None], {"strength": strength}
    if choice.varied:
        kind = vary(rng)
    angle = float(rng.uniform(-kind.slant, kind.slant))
    motion = float(rng.uniform(*kind.motion))
    strength = float(rng.uniform(*kind.strength))
    layers = kind.layers(motion, size_factor(image_shape))
    mask = smeared_specks(rng, shape, layers, np.deg2rad(angle), share=severity)
    least, more = (np.float32(value) for value in kind.evenness)
    mask *= least + more * smooth_noise(rng, shape, kind.cells(min(shape)))
    mask, parameters = kind.shown(mask, strength, severity)
    return mask[:, :, None], {"density": severity, "angle": angle, **parameters}


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform: as many halvings as doublings."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _varied_rain(rng: np.random.Generator) -> Falling:
    """Rain as it differs from picture to picture: drizzle, downpours, short and long exposures.

    A network trained on one procedural rain removes that rain and no other. So the number,
    length, width and brightness of streaks are drawn anew for every picture.
    """
    drawn = [
        (
            layer,
            _between(rng, 0.1, 1.6) * layer.density,
            _between(rng, 0.4, 2.5) * layer.along,
            _between(rng, 0.7, 2.2) * layer.across,
            _between(rng, 0.5, 2.0),
        )
        for layer in _streaks(1.0, 1.0)
    ]
    size = _between(rng, 0.7, 1.6)

    def streaks(length: float, scale: float) -> tuple[Specks, ...]:
        return tuple(
            Specks(
                density,
                along * length * scale * size,
                across * size,
                layer.low * bright,
                layer.high * bright,
            )
            for layer, density, along, across, bright in drawn
        )

    return replace(
        RAIN,
        slant=float(rng.uniform(5, 60)),
        strength=(0.4, 1.1),
        layers=streaks,
        evenness=(float(rng.uniform(0.2, 0.9)), 0.8),
    )


def _varied_snow(rng: np.random.Generator) -> Falling:
    """Snow as it differs from picture to picture: see `_varied_rain`.

    Flakes run from specks to blurred discs of many pixels, from frozen in the air to long smears,
    from transparent to flat white.
    """
    drawn = [
        (
            layer,
            _between(rng, 0.15, 2.0) * layer.density,
            _between(rng, 0.7, 1.8) * layer.across,
            _between(rng, 0.5, 3.0),
        )
        for layer in _flakes(1.0, 1.0)
    ]
    size = _between(rng, 0.7, 1.6)
    smear = _between(rng, 1.0, 5.0)

    def flakes(motion: float, scale: float) -> tuple[Specks, ...]:
        return tuple(
            Specks(
                density / size,
                max(0.5, across * (scale * size)) * (1 + (motion * smear - 1) / (1 + across / 2)),
                max(0.5, across * (scale * size)),
                layer.low * bright,
                layer.high * bright,
            )
            for layer, density, across, bright in drawn
        )

    fine = float(rng.uniform()) < 0.5
    return replace(
        SNOW,
        slant=float(rng.uniform(10, 80)),
        motion=(1.0, 1.6),
        strength=(0.45, 1.0),
        layers=flakes,
        evenness=(0.7, 0.6) if fine else (float(rng.uniform(0.3, 1.0)), 0.5),
        cells=SNOW.cells if fine else RAIN.cells,
    )


def size_factor(shape: tuple[int, ...]) -> float:
    """How much larger a drop or flake is drawn than on a 512-pixel image.

    It grows with the square root of the shorter side: a large photograph shows a wider scene and
    more detail at once.
    """
    return float(np.clip((min(shape[:2]) / 512) ** 0.5, 0.6, 1.6))


def smeared_specks(
    rng: np.random.Generator,
    shape: tuple[int, int],
    layers: Sequence[Specks],
    angle: float,
    share: float = 1.0,
) -> Field:
    """The sum of layers of Gaussian specks, all smeared along ``angle``.

    Args:
        rng: the stream; the same number of values is drawn for every ``share``.
        shape: (H, W) of the field.
        layers: what to draw.
        angle: direction of motion in radians from the vertical.
        share: the part of every layer's specks that is kept; a larger share keeps the same ones
            and adds others, so the field grows continuously.

    Returns:
        (H, W) float32, at least 0, peaks as the layers ask where specks do not overlap.
    """
    padded = (_fast_length(shape[0]), _fast_length(shape[1]))
    rows, columns = _frequencies(padded)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    along *= along
    across *= across
    spectrum: NDArray[np.complex128] | None = None
    for layer in layers:
        impulses = _impulses(rng, padded, layer, share)
        if impulses is None:
            continue
        kernel = np.exp(-2 * np.pi**2 * (layer.along**2 * along + layer.across**2 * across))
        kernel *= 2 * np.pi * layer.along * layer.across
        kernel = kernel * fft.rfft2(impulses)
        spectrum = kernel if spectrum is None else spectrum + kernel
    if spectrum is None:
        return np.zeros(shape, np.float32)
    field = cast("NDArray[np.float64]", fft.irfft2(spectrum, s=padded))
    return on_grid(np.maximum(field[: shape[0], : shape[1]], 0))


def _fast_length(length: int) -> int:
    return int(cast("int", fft.next_fast_len(length, real=True)))


@lru_cache(maxsize=8)
def _frequencies(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = np.fft.fftfreq(shape[0]).astype(np.float64)
    columns = np.fft.rfftfreq(shape[1]).astype(np.float64)
    return rows[:, None], columns[None, :]


def _impulses(
    rng: np.random.Generator, shape: tuple[int, int], layer: Specks, share: float
) -> NDArray[np.float64] | None:
    pixels = shape[0] * shape[1]
    count = max(1, round(layer.density * pixels))
    where = rng.integers(0, pixels, count)
    peaks = rng.uniform(layer.low, layer.high, count)
    kept = int(np.ceil(share * count)) if share > 0 else 0
    if kept == 0:
        return None
    sums = np.bincount(where[:kept], weights=peaks[:kept], minlength=pixels)
    return sums.astype(np.float64).reshape(shape)
