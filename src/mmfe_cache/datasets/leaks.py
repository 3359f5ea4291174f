"""The same photograph in train and in test: found by a perceptual hash, confirmed by pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.errors import DataError
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray, PixelSource, Sample

HASH_SIDE = 16
"""The hash has HASH_SIDE squared bits."""

MAX_DISTANCE = 40
"""Most bits of 256 that may differ between two candidates: unrelated photographs differ in 128,
give or take 16."""

MIN_CORRELATION = 0.98
"""Least correlation of the two thumbnails, which confirms a candidate."""

_THUMB = 48


@dataclass(frozen=True, slots=True)
class Leak:
    """A test photograph that was found in the training split.

    Attributes:
        test: its name in the test split.
        train: its name in the training split.
        distance: bits of the hash that differ.
        correlation: of the two thumbnails.
    """

    test: str
    train: str
    distance: int
    correlation: float


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The clean photographs of a split, one row each.

    Attributes:
        names: of their sources.
        hashes: (N, HASH_SIDE ** 2) bool.
        thumbs: (N, 48 * 48) float32, zero mean, unit length.
    """

    names: tuple[str, ...]
    hashes: NDArray[np.bool_]
    thumbs: NDArray[np.float32]


def fingerprints(sources: Iterable[PixelSource], progress: Progress | None = None) -> Fingerprints:
    """Hash photographs; those that cannot be read are left out.

    Args:
        sources: clean pictures; one of several with equal names is read.
        progress: where to report.
    """
    distinct = list({source.name: source for source in sources}.values())
    names: list[str] = []
    hashes: list[NDArray[np.bool_]] = []
    thumbs: list[NDArray[np.float32]] = []
    with (progress or Progress()).task("comparing", len(distinct), "photographs") as task:
        for source in distinct:
            try:
                image = source.read()
            except DataError:
                continue
            names.append(source.name)
            hashes.append(difference_hash(image))
            thumbs.append(_thumb(image))
            task.advance()
    bits = HASH_SIDE**2
    return Fingerprints(
        tuple(names),
        np.array(hashes, dtype=np.bool_).reshape(-1, bits),
        np.array(thumbs, dtype=np.float32).reshape(-1, _THUMB**2),
    )


def difference_hash(image: ImageArray) -> NDArray[np.bool_]:
    """Whether each of 16x16 cells is brighter than its right neighbour, as 256 bits."""
    small = _grey(image, HASH_SIDE + 1, HASH_SIDE)
    return (small[:, 1:] > small[:, :-1]).ravel()


def find_leaks(train: Fingerprints, test: Fingerprints) -> tuple[Leak, ...]:
    """The test photographs that the training split holds too.

    Each test photograph is reported once, with its nearest twin.
    """
    leaks: list[Leak] = []
    if not train.names or not test.names:
        return ()
    signs = train.hashes.astype(np.float32) * 2 - 1
    for name, bits, thumb in zip(test.names, test.hashes, test.thumbs, strict=True):
        distances = (bits.size - signs @ (bits.astype(np.float32) * 2 - 1)) / 2
        near = np.flatnonzero(distances <= MAX_DISTANCE)
        if near.size == 0:
            continue
        correlations = train.thumbs[near] @ thumb
        best = int(correlations.argmax())
        if correlations[best] >= MIN_CORRELATION:
            twin = int(near[best])
            leaks.append(
                Leak(name, train.names[twin], int(distances[twin]), float(correlations[best]))
            )
    return tuple(leaks)


def count_distinct(prints: Fingerprints) -> int:
    """How many different photographs a split shows; copies under other names count once."""
    count = 0
    for row, (bits, thumb) in enumerate(zip(prints.hashes, prints.thumbs, strict=True)):
        distances = np.count_nonzero(prints.hashes[:row] != bits, axis=1)
        near = np.flatnonzero(distances <= MAX_DISTANCE)
        twin = near.size > 0 and float((prints.thumbs[near] @ thumb).max()) >= MIN_CORRELATION
        count += not twin
    return count


def clean_sources_of(samples: Iterable[Sample]) -> Sequence[PixelSource]:
    """The distinct clean pictures of a split, windows counted as their whole frame."""
    found: dict[str, PixelSource] = {}
    for sample in samples:
        source = sample.clean
        if source is None:
            continue
        source = getattr(source, "base", source)
        found.setdefault(source.name, source)
    return list(found.values())


def _grey(image: ImageArray, width: int, height: int) -> NDArray[np.float32]:
    small = Image.fromarray(image).convert("L").resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def _thumb(image: ImageArray) -> NDArray[np.float32]:
    thumb = _grey(image, _THUMB, _THUMB).ravel()
    thumb = thumb - thumb.mean()
    norm = float(np.linalg.norm(thumb))
    return np.asarray(thumb / norm if norm > 0 else thumb, dtype=np.float32)
