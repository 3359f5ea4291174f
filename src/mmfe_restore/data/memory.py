"""Small training sets stay decoded in memory, so that no step waits for a PNG decoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from mmfe_cache.samples import ImageArray, PixelSource, Sample

SHARE = 0.25
"""The largest share of the machine's free memory that decoded pictures may take."""


class HeldSource:
    """A picture that is decoded once, at its first use, and then kept."""

    def __init__(self, source: PixelSource) -> None:
        self._source = source
        self._pixels: ImageArray | None = None

    @property
    def name(self) -> str:
        """What an error message calls this image."""
        return self._source.name

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        if self._pixels is not None:
            return self._pixels.shape[0], self._pixels.shape[1]
        return self._source.size()

    def read(self) -> ImageArray:
        """The whole image, (H, W, 3) uint8; do not write into it."""
        if self._pixels is None:
            self._pixels = self._source.read()
        return self._pixels

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """The window that starts at (top, left), (height, width, 3) uint8."""
        return self.read()[top : top + height, left : left + width]


def decoded_bytes(samples: Sequence[Sample], limit: int) -> int:
    """Bytes of all pictures once decoded; stops counting above ``limit``."""
    total = 0
    seen: set[str] = set()
    for sample in samples:
        for source in _sources(sample):
            if source.name in seen:
                continue
            seen.add(source.name)
            height, width = source.size()
            total += 3 * height * width
            if total > limit:
                return total
    return total


def hold_in_memory(samples: Sequence[Sample]) -> tuple[Sample, ...] | None:
    """Wrap every picture in a `HeldSource` where all of them fit; None where they do not.

    Samples of one scene share one ground truth. A noisy sample needs its clean picture only.
    """
    budget = int(SHARE * free_memory())
    if decoded_bytes(samples, budget) > budget:
        return None
    held: dict[str, HeldSource] = {}

    def hold(source: PixelSource) -> HeldSource:
        return held.setdefault(source.name, HeldSource(source))

    return tuple(
        replace(
            sample,
            degraded=sample.degraded if sample.noise_sigma is not None else hold(sample.degraded),
            clean=None if sample.clean is None else hold(sample.clean),
        )
        for sample in samples
    )


def free_memory() -> int:
    """Bytes of memory that are free now; 0 where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def _sources(sample: Sample) -> list[PixelSource]:
    noisy = sample.noise_sigma is not None
    sources = [None if noisy else sample.degraded, sample.clean]
    return [source for source in sources if source is not None]
