"""Pixel sources that are computed from another source: noise, windows, synthetic weather."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.degradations import PROCEDURAL, DegradationConfig, degrade, kinds_of
from mmfe_cache.images import check_crop, crop
from mmfe_cache.samples import ImageArray, PixelSource
from mmfe_cache.seeds import generator


@dataclass(frozen=True, slots=True)
class DerivedSource(ABC):
    """A source made from another one; packing stores the one below and keeps the recipe.

    Attributes:
        base: the source it is made from.
    """

    base: PixelSource

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the source below, and what is made of it."""

    @abstractmethod
    def read(self) -> ImageArray:
        """The whole image, (H, W, 3) uint8."""

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.base.size()

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """A window of `read`, which computes the whole image."""
        return crop(self.read(), top, left, height, width, self.name)


def add_noise(clean: ImageArray, sigma: float, *seed_parts: str | int) -> ImageArray:
    """Gaussian noise as the peers add it: clip(clean + sigma N(0, 1), 0, 255), cut to uint8.

    Args:
        clean: (H, W, 3) uint8.
        sigma: standard deviation on the 0 to 255 scale.
        seed_parts: names the realisation: for a cached picture ("noise", sample id), for a
            training draw (seed, sample id, epoch, repeat).

    Returns:
        (H, W, 3) uint8, truncated and not rounded, as PromptIR's.
    """
    return np.clip(unclipped_noise(clean, sigma, *seed_parts), 0, 255).astype(np.uint8)


def unclipped_noise(clean: ImageArray, sigma: float, *seed_parts: str | int) -> NDArray[np.float32]:
    """`add_noise` before it is clipped and cut: what published noise levels in dB refer to.

    Returns:
        (H, W, 3) float32 around [0, 255].
    """
    noise = generator("noise", *seed_parts).standard_normal(clean.shape, dtype=np.float32)
    return np.asarray(clean + noise * np.float32(sigma), np.float32)


@dataclass(frozen=True, slots=True)
class NoisySource(DerivedSource):
    """A clean picture plus noise realisation 0: the one that guides and tests see.

    Attributes:
        base: the clean picture.
        sigma: standard deviation on the 0 to 255 scale.
        id: the sample's id, which names the noise.
    """

    sigma: float
    id: str

    @property
    def name(self) -> str:
        """The clean picture's name and the noise."""
        return f"{self.base.name} + noise {self.sigma:g}"

    def read(self) -> ImageArray:
        """The noisy picture, (H, W, 3) uint8."""
        return add_noise(self.base.read(), self.sigma, self.id)


@dataclass(frozen=True, slots=True)
class WindowSource(DerivedSource):
    """A fixed window of a larger picture, such as one of GoPro's 512-pixel training crops.

    Attributes:
        base: the whole picture.
        top: first row.
        left: first column.
        height: rows.
        width: columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """The picture's name and the window."""
        return f"{self.base.name}[{self.top}:{self.left}]"

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the window."""
        return self.height, self.width

    def read(self) -> ImageArray:
        """The window, (height, width, 3) uint8."""
        return self.base.read_crop(self.top, self.left, self.height, self.width)

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """A window inside the window."""
        check_crop(self.name, self.size(), top, left, height, width)
        return self.base.read_crop(self.top + top, self.left + left, height, width)


@dataclass(frozen=True, slots=True)
class SyntheticSource(DerivedSource):
    """A clean photograph under synthetic weather, computed at every read.

    Attributes:
        base: the clean photograph.
        composition: the class, such as ``"low_haze"``.
        seed_parts: names the random streams.
        config: masks and maps to use instead of procedural ones.
        photograph: the name by which ``config`` finds its maps.
    """

    composition: str
    seed_parts: tuple[str | int, ...] = field(default=())
    config: DegradationConfig = PROCEDURAL
    photograph: str | None = None

    @property
    def name(self) -> str:
        """The photograph's name and the class."""
        return f"{self.base.name} + {self.composition}"

    def ways(self) -> list[tuple[str, bool, bool]]:
        """How each of its degradations is drawn: kind, whether varied, whether from a file."""
        parts = (self.composition, *self.seed_parts)
        kinds = kinds_of(self.composition)
        drawn = [(kind, self.config.choose(kind, self.photograph, parts)) for kind in kinds]
        return [(kind, choice.varied, choice.file is not None) for kind, choice in drawn]

    def read(self) -> ImageArray:
        """The degraded picture, (H, W, 3) uint8."""
        return degrade(
            self.base.read(),
            self.composition,
            seed_parts=self.seed_parts,
            config=self.config,
            photograph=self.photograph,
        ).image
