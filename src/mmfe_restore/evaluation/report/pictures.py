"""The pictures of a report's page: small, encoded, of a bounded total size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from mmfe_cache.images import shrink
from mmfe_cache.samples import ImageArray, Sample, SampleSet

BUDGET = 6 << 20
"""Bytes that all pictures of a page take together, before base64."""

MOST_SAMPLES = 44
MOST_PER_CLASS = 4
_SIDE = 640
_QUALITIES = (84, 74, 62, 46, 32)

ERROR_SCALE = 0.25
"""The mean absolute error over the channels that is drawn brightest."""

# Anchors of a map from black over purple and orange to pale yellow, whose lightness rises
# evenly: dark is good, as in the paper's figures, and it reads the same in greyscale.
_ANCHORS = (
    (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21),
    (250, 193, 39), (252, 255, 164),
)  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """One sample as the page shows it, each picture encoded by itself.

    Attributes:
        id: the sample's id.
        mime: of every picture.
        width: of the shown pictures, in pixels.
        height: likewise.
        degraded: the input.
        restored: the output.
        clean: the ground truth.
        error_before: error map of the input.
        error_after: error map of the output.
        seen: the guide's view of the input; None where no guide saw it.
    """

    id: str
    mime: str
    width: int
    height: int
    degraded: bytes
    restored: bytes
    clean: bytes
    error_before: bytes
    error_after: bytes
    seen: bytes | None = None

    @property
    def parts(self) -> dict[str, bytes | None]:
        """Every picture by its name."""
        names = ("degraded", "restored", "clean", "error_before", "error_after", "seen")
        return {name: getattr(self, name) for name in names}


def choose(samples: SampleSet, most: int = MOST_SAMPLES) -> frozenset[int]:
    """Positions of the samples to show: evenly spaced scenes of every class.

    The same ones of every class, where the classes share as many. They are chosen by name, before
    anything is restored, so that a page never flatters.
    """
    labels = samples.labels
    each = max(1, min(MOST_PER_CLASS, most // max(1, len(labels))))
    places: dict[str, list[int]] = {label: [] for label in labels}
    for i in sorted(range(len(samples)), key=lambda i: _by_name(samples.samples[i])):
        places[samples.samples[i].label].append(i)
    first = [{samples.samples[i].scene: i for i in reversed(places[label])} for label in labels]
    shared = [scene for scene in (first[0] if first else ()) if all(scene in one for one in first)]
    if len(shared) >= min(each, max(map(len, places.values()), default=0)):
        scenes = _evenly(sorted(shared), each)
        chosen = [one[scene] for one in first for scene in scenes]
    else:
        chosen = [i for members in places.values() for i in _evenly(members, each)]
    return frozenset(chosen[:most])


def _by_name(sample: Sample) -> tuple[str, str]:
    return sample.scene, sample.id


T = TypeVar("T")


def _evenly(found: Sequence[T], most: int) -> list[T]:
    """The middles of ``most`` equal parts, never one twice; all where there are no more."""
    count = min(most, len(found))
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(count)]


def encode(
    sample_id: str,
    degraded: ImageArray,
    restored: ImageArray,
    clean: ImageArray,
    budget: int,
    seen: ImageArray | None = None,
) -> Pictures:
    """Shrink and compress one sample's pictures.

    Args:
        sample_id: the sample's id.
        degraded: (H, W, 3) uint8.
        restored: likewise.
        clean: likewise.
        budget: bytes for all pictures; quality and then size fall until they fit.
        seen: the guide's view of the input, (H, W, 3) uint8.
    """
    originals: Sequence[ImageArray] = (
        degraded,
        restored,
        clean,
        error_map(degraded, clean),
        error_map(restored, clean),
        *(() if seen is None else (seen,)),
    )
    sides = [_SIDE >> halvings for halvings in range(4)]
    for side, quality in product(sides, _QUALITIES):
        shown = [Image.fromarray(shrink(image, side)) for image in originals]
        parts = [_compress(image, quality) for image in shown]
        # The smallest and coarsest is taken as it is: at 90 pixels it is a few kilobytes.
        if sum(map(len, parts)) <= budget or (side, quality) == (sides[-1], _QUALITIES[-1]):
            return Pictures(sample_id, _mime(), shown[0].width, shown[0].height, *parts)
    raise AssertionError("the last choice is always taken")


def error_map(image: ImageArray, clean: ImageArray) -> ImageArray:
    """(H, W, 3) uint8 colours of the mean absolute error over the channels.

    Black is no error; `ERROR_SCALE` and above is the brightest.
    """
    level = np.clip(mean_error(image, clean) / ERROR_SCALE, 0.0, 1.0) * 255.0
    return _palette()[np.rint(level).astype(np.uint8)]


def mean_error(image: ImageArray, clean: ImageArray) -> NDArray[np.float32]:
    """(H, W) mean over R, G and B of the absolute difference, of values from 0 to 1."""
    difference = np.abs(image.astype(np.float32) - clean.astype(np.float32))
    return difference.mean(axis=2) / np.float32(255)


def palette_css() -> str:
    """The error map's colours as a CSS gradient, for its legend."""
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in _ANCHORS)


def _palette() -> NDArray[np.uint8]:
    place = np.linspace(0, 255, len(_ANCHORS))
    columns = [np.interp(np.arange(256), place, channel) for channel in zip(*_ANCHORS, strict=True)]
    return np.rint(np.stack(columns, axis=1)).astype(np.uint8)


def _compress(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    if _mime() == "image/webp":
        picture.save(stream, "WEBP", quality=quality, method=4)
    else:
        picture.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    return stream.getvalue()


def _mime() -> str:
    return "image/webp" if features.check("webp") else "image/jpeg"


def budget_each(samples: int) -> int:
    """Bytes that one of ``samples`` shown samples may take."""
    return BUDGET // max(1, samples)
