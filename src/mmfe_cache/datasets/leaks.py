"""The same photograph in train and in test: found by a perceptual hash, confirmed by pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.degradations import split_class
from mmfe_cache.errors import DataError
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray, PixelSource, Sample

HASH_SIDE = 16
"""The hash has HASH_SIDE squared cells."""

MAX_DIFFERING = 40 / 256
"""Largest share of the compared cells that may differ between two candidates: of unrelated
photographs half of them do."""

LEAST_STEP = 1
"""Neighbouring cells count where they differ by more than this, in grey levels: in a sky rounding
decides which is brighter, another way in every resized copy."""

MIN_CORRELATION = 0.98
"""Least correlation of the two thumbnails, which confirms a candidate."""

_THUMB = 48


@dataclass(frozen=True, slots=True)
class Leak:
    """A test photograph that was found in the training split.

    Attributes:
        test: its name in the test split.
        train: its name in the training split.
        distance: cells of the hash that differ.
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
        hashes: (N, HASH_SIDE ** 2) float32, see `difference_hash`.
        thumbs: (N, 48 * 48) float32, zero mean, unit length.
    """

    names: tuple[str, ...]
    hashes: NDArray[np.float32]
    thumbs: NDArray[np.float32]


def fingerprints(sources: Iterable[PixelSource], progress: Progress | None = None) -> Fingerprints:
    """Hash photographs; those that cannot be read are left out.

    Args:
        sources: clean pictures; one of several with equal names is read.
        progress: where to report.
    """
    distinct = list({source.name: source for source in sources}.values())
    names: list[str] = []
    hashes: list[NDArray[np.float32]] = []
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
    cells = HASH_SIDE**2
    return Fingerprints(
        tuple(names),
        np.array(hashes, dtype=np.float32).reshape(-1, cells),
        np.array(thumbs, dtype=np.float32).reshape(-1, _THUMB**2),
    )


def difference_hash(image: ImageArray) -> NDArray[np.float32]:
    """Of 16x16 cells: 1 where the right neighbour is brighter, -1 where darker, 0 where neither.

    Returns:
        (256,) float32.
    """
    steps = np.diff(_grey(image, HASH_SIDE + 1, HASH_SIDE), axis=1).ravel()
    return np.where(np.abs(steps) > LEAST_STEP, np.sign(steps), np.float32(0))


def _candidates(
    hashes: NDArray[np.float32], other: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """The rows of ``hashes`` that may show what ``other`` shows; in how many cells each differs."""
    compared = np.abs(hashes) @ np.abs(other)
    differing = (compared - hashes @ other) / 2
    return np.flatnonzero(differing <= MAX_DIFFERING * compared), differing


def find_leaks(train: Fingerprints, test: Fingerprints) -> tuple[Leak, ...]:
    """The test photographs that the training split holds too.

    Each test photograph is reported once, with its nearest twin.
    """
    leaks: list[Leak] = []
    if not train.names or not test.names:
        return ()
    for name, cells, thumb in zip(test.names, test.hashes, test.thumbs, strict=True):
        near, differing = _candidates(train.hashes, cells)
        if near.size == 0:
            continue
        correlations = train.thumbs[near] @ thumb
        best = int(correlations.argmax())
        if correlations[best] >= MIN_CORRELATION:
            twin = int(near[best])
            leaks.append(
                Leak(name, train.names[twin], int(differing[twin]), float(correlations[best]))
            )
    return tuple(leaks)


def count_distinct(prints: Fingerprints) -> int:
    """How many different photographs a split shows; copies under other names count once."""
    count = 0
    for row, (cells, thumb) in enumerate(zip(prints.hashes, prints.thumbs, strict=True)):
        near, _ = _candidates(prints.hashes[:row], cells)
        twin = near.size > 0 and float((prints.thumbs[near] @ thumb).max()) >= MIN_CORRELATION
        count += not twin
    return count


def clean_sources_of(samples: Iterable[Sample]) -> Sequence[PixelSource]:
    """The distinct clean pictures of a split, windows counted as their whole frame.

    A partial target is none: some degradations stay in it, and its photograph is counted already.
    """
    found: dict[str, PixelSource] = {}
    for sample in samples:
        source = sample.clean
        if source is None or split_class(sample.label)[1] is not None:
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
