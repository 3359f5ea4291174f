"""The CDD11 degradation model: low light, then rain, then snow, then haze."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.samples import ImageArray
from mmfe_cache.seeds import generator

from . import light, weather
from .compositions import kinds_of
from .maps import PROCEDURAL, Choice, Degradation, DegradationConfig, FloatImage, mask_amount


class _Kind(NamedTuple):
    """One degradation: how it is applied, and the severities that a set draws."""

    apply: Degradation
    published: tuple[float, ...]
    varied: tuple[float, ...]


_KINDS = {
    "low": _Kind(light.apply_low, light.LOW_SEVERITY, light.LOW_VARIED_SEVERITY),
    "rain": _Kind(weather.apply_rain, weather.SEVERITY, weather.VARIED_SEVERITY),
    "snow": _Kind(weather.apply_snow, weather.SEVERITY, weather.VARIED_SEVERITY),
    "haze": _Kind(light.apply_haze, light.HAZE_SEVERITY, light.HAZE_VARIED_SEVERITY),
}


@dataclass(frozen=True, slots=True)
class Degraded:
    """A degraded picture and what was done to it.

    Attributes:
        image: (H, W, 3) uint8, or float32 in [0, 1] where the clean image was float.
        severities: each applied kind's severity in [0, 1], linear from absent (0) to the
            strongest published parameter (1).
        parameters: each applied kind's raw parameters, in published units.
        files: each applied kind's mask, map or photograph, where a file was used.
    """

    image: NDArray[Any]
    severities: dict[str, float]
    parameters: dict[str, dict[str, float]]
    files: dict[str, Path]


def degrade(
    clean: ImageArray | FloatImage,
    composition: str,
    *,
    seed_parts: tuple[str | int, ...],
    severities: Mapping[str, float] | None = None,
    config: DegradationConfig = PROCEDURAL,
    photograph: str | None = None,
    keep: Collection[str] | None = None,
) -> Degraded:
    """Degrade a clean image as CDD11 does; a pure function of its arguments.

    Each kind draws from its own stream, so one kind's severity never moves another's drops.

    Args:
        clean: (H, W, 3), uint8 in [0, 255] or floating in [0, 1].
        composition: a class name, see `COMPOSITIONS`; any other combination works too.
        seed_parts: names the random streams: usually the sample's id and a seed.
        severities: kind to severity in [0, 1]; kinds left out are drawn from the published
            range (0.5 to 1), and a mask shows as it is.
        config: masks and maps to use instead of procedural ones.
        photograph: the name by which ``config`` finds its maps.
        keep: apply these kinds of the composition only: the same draw with the others undone.
            None applies all.

    Returns:
        The degraded image in the type of ``clean``: uint8 (rounded), or float32.

    Raises:
        UsageError: the composition, a severity or ``keep`` makes no sense.
        DataError: the image has another shape or type, or a mask or map cannot be read.
    """
    wanted = dict(severities or {})
    kinds = kinds_of(composition)
    _check_severities(wanted, kinds, composition)
    if keep is not None and not set(keep) <= set(kinds):
        raise UsageError(
            f"a kind is to be kept that {composition!r} does not hold",
            got=", ".join(keep),
            expected=f"some of {', '.join(kinds)}",
        )
    original = image = _to_float(clean)
    done = Degraded(clean, {}, {}, {})
    for kind in kinds:
        if keep is not None and kind not in keep:
            continue  # its stream is its own: leaving it out moves no other kind's
        choice = config.choose(kind, photograph, (composition, *seed_parts))
        rng, drawn = _open_stream(kind, composition, seed_parts, choice)
        severity = float(wanted.get(kind, drawn))
        if choice.dark is not None:
            severity = drawn  # a photograph is as dark as it is
        image, parameters = _KINDS[kind].apply(image, severity, rng, original, choice)
        done.severities[kind] = severity
        done.parameters[kind] = parameters
        if choice.file is not None:
            done.files[kind] = choice.file
    if clean.dtype == np.uint8:
        image = (image * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return replace(done, image=image)


def drawn_severities(
    composition: str,
    *,
    seed_parts: tuple[str | int, ...],
    config: DegradationConfig = PROCEDURAL,
    photograph: str | None = None,
) -> dict[str, float]:
    """The severities that `degrade` draws for these arguments, without touching the image."""
    found: dict[str, float] = {}
    for kind in kinds_of(composition):
        choice = config.choose(kind, photograph, (composition, *seed_parts))
        found[kind] = _open_stream(kind, composition, seed_parts, choice)[1]
    return found


def _open_stream(
    kind: str, composition: str, seed_parts: tuple[str | int, ...], choice: Choice
) -> tuple[np.random.Generator, float]:
    rng = generator("degrade", kind, composition, *seed_parts)
    about = _KINDS[kind]
    weakest, strongest = about.varied if choice.varied else about.published
    drawn = float(rng.uniform(weakest, strongest))
    if choice.mask is not None:
        drawn = weather.mask_severity(mask_amount(choice.mask))
    if choice.dark is not None:
        drawn = 1.0  # no exponent is known; real ones are darker than CDD11's darkest
    return rng, drawn


def _check_severities(
    severities: Mapping[str, float], kinds: tuple[str, ...], composition: str
) -> None:
    for kind, severity in severities.items():
        if kind not in kinds:
            raise UsageError(
                f"severity given for {kind!r}, which {composition!r} does not hold",
                got=kind,
                expected=", ".join(kinds),
            )
        if not 0 <= severity <= 1:
            raise UsageError(f"severity of {kind} is out of range", got=severity, expected="0 to 1")


def _to_float(clean: NDArray[Any]) -> FloatImage:
    if clean.ndim != 3 or clean.shape[2] != 3 or 0 in clean.shape:
        raise DataError(
            "the clean image has a wrong shape", got=clean.shape, expected="(H, W, 3), not empty"
        )
    if clean.dtype == np.uint8:
        return clean.astype(np.float32) / np.float32(255)
    if clean.dtype.kind == "f":
        return np.clip(clean, 0, 1).astype(np.float32)
    raise DataError(
        "the clean image has a wrong type", got=clean.dtype, expected="uint8 or floating in [0, 1]"
    )
