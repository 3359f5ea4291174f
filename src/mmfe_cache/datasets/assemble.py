"""From pairs of files to samples with ids, labels and sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, read_size
from mmfe_cache.samples import Sample, SampleSet

from .pairing import Pair
from .parts import FoundPart
from .sources import NoisySource, WindowSource

WINDOW = 512
"""Side of GoPro's training windows, in pixels (MoCE-IR)."""

WINDOW_STEP = 256
"""Distance of neighbouring windows, in pixels (MoCE-IR)."""


def samples_of(
    found: FoundPart, severities: Mapping[str, Mapping[str, float]] | None = None
) -> Iterator[Sample]:
    """The samples of a part.

    Args:
        found: the part as it lies on the disk.
        severities: recorded severities by sample id.
    """
    for pair in found.pairs:
        if found.layout.maker == "noise":
            yield from _noisy(found, pair)
        elif found.layout.maker == "windows":
            yield from _windows(found, pair)
        else:
            label = found.part.labels[0]
            name = f"{label}/{pair.stem}"
            yield Sample(
                name,
                FileSource(_there(pair.degraded)),
                FileSource(_there(pair.clean)),
                label,
                pair.scene,
                severities.get(name) if severities else None,
            )


def _noisy(found: FoundPart, pair: Pair) -> Iterator[Sample]:
    clean = FileSource(_there(pair.clean))
    for label in found.part.labels:
        sigma = float(label.removeprefix("noise-"))
        name = f"{label}/{pair.stem}"
        degraded = NoisySource(clean, sigma, name)
        yield Sample(name, degraded, clean, label, pair.scene, noise_sigma=sigma)


def _windows(found: FoundPart, pair: Pair) -> Iterator[Sample]:
    degraded, clean = _there(pair.degraded), _there(pair.clean)
    label = found.part.labels[0]
    for top, left, height, width in windows(*read_size(degraded)):
        yield Sample(
            f"{label}/{pair.stem}-{top:04d}-{left:04d}",
            WindowSource(FileSource(degraded), top, left, height, width),
            WindowSource(FileSource(clean), top, left, height, width),
            label,
            pair.scene,
        )


def windows(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the training windows of a frame: eight for 1280x720.

    The last window of each axis is pushed back inside; a smaller frame is one window.
    """
    rows, columns = _starts(height), _starts(width)
    side_h, side_w = min(WINDOW, height), min(WINDOW, width)
    return [(top, left, side_h, side_w) for top in rows for left in columns]


def _starts(length: int) -> list[int]:
    last = max(0, length - WINDOW)
    starts = list(range(0, last, WINDOW_STEP))
    return [*starts, last]


def _there(path: Path | None) -> Path:
    if path is None:
        raise DataError("a pair lacks a file that its layout must have")
    return path


def sample_set(
    name: str,
    split: str,
    root: Path,
    layout: str,
    samples: list[Sample],
    warnings: list[str],
) -> SampleSet:
    """Sort samples by id and make sure that they are some, and distinct.

    Raises:
        DataError: no sample, or two of one id.
    """
    if not samples:
        raise DataError(
            f"no pair was found for {name!r}, split {split}",
            got="; ".join(warnings) or f"nothing under {root}",
            expected="pairs of image files, or photographs",
            remedy=f"mmfe data check --dataset {name} --root '{root}'",
        )
    samples.sort(key=lambda sample: sample.id)
    for first, second in pairwise(samples):
        if first.id == second.id:
            raise DataError(
                f"two samples have the id {first.id!r}",
                got=f"{first.degraded.name} and {second.degraded.name}",
                remedy="rename one of the files",
            )
    return SampleSet(name, split, root, layout, tuple(samples), tuple(warnings))
