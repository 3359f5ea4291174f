"""Samples: an id, a degraded picture, its clean picture and what was done to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, values 0 to 255."""


@runtime_checkable
class PixelSource(Protocol):
    """Where an image's pixels come from; the same bytes at every call, in every process."""

    @property
    def name(self) -> str:
        """What an error message calls this image: usually its path."""
        ...

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, read without decoding where possible."""
        ...

    def read(self) -> ImageArray:
        """The whole image, (H, W, 3) uint8.

        Raises:
            DataError: the image is missing, truncated or not an image.
        """
        ...

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """The window that starts at (top, left), (height, width, 3) uint8; it must lie inside."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One training or test pair.

    Attributes:
        id: unique within its split and stable across machines, ``"<label>/<stem>"``.
        degraded: the degraded picture (for denoising: noise realisation 0).
        clean: the ground truth; None where there is none.
        label: the class that averages are taken over, such as ``"low_haze"`` or ``"noise-25"``.
        scene: what is never split between training and test: the clean photograph's name, the
            sequence of GoPro's frames, or what several photographs of one's own show, see
            `mmfe_cache.datasets.photographs.scene_of`.
        severities: degradation name to severity in [0, 1]; only synthetic sets record it.
        noise_sigma: standard deviation on the 0 to 255 scale where ``degraded`` is
            ``clean`` plus Gaussian noise; training then draws fresh noise from ``clean``.
    """

    id: str
    degraded: PixelSource
    clean: PixelSource | None
    label: str
    scene: str
    severities: Mapping[str, float] | None = None
    noise_sigma: float | None = None


@dataclass(frozen=True, slots=True)
class SampleSet:
    """The samples of one split, in a fixed order.

    Attributes:
        dataset: the dataset's name, such as ``"cdd11"``.
        split: ``"train"`` or ``"test"``.
        root: the folder they were found in.
        layout: which of the known layouts was recognised.
        samples: sorted by id.
        warnings: what a user should know: fewer files than published, leaks, unpaired names.
    """

    dataset: str
    split: str
    root: Path
    layout: str
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        """The samples in order."""
        return iter(self.samples)

    @property
    def ids(self) -> tuple[str, ...]:
        """The samples' ids in order."""
        return tuple(sample.id for sample in self.samples)

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels, in order of first appearance."""
        return tuple(dict.fromkeys(sample.label for sample in self.samples))
