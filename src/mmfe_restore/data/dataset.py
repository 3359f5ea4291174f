"""Training pairs: a random crop, flipped and turned, as a pure function of what was drawn.

Small training sets stay decoded in memory, so that no step waits for a PNG decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmfe_cache.datasets import add_noise
from mmfe_cache.errors import DataError
from mmfe_cache.machine import free_memory
from mmfe_cache.samples import ImageArray, PixelSource, Sample
from mmfe_cache.seeds import generator
from mmfe_cache.views import View, mirror_to
from mmfe_restore.data.sampler import Draw


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """One training item.

    Attributes:
        degraded: (r, r, 3) uint8.
        clean: (r, r, 3) uint8.
    """

    degraded: ImageArray
    clean: ImageArray


class TrainingPairs(Dataset[TrainingPair]):
    """Cuts training crops; item d depends on the seed, the sample's id, epoch and repeat alone.

    Args:
        samples: in the order that `Draw.sample` counts.
        seed: the run's.
        augment: draw one of the eight flips and rotations.
        aligned_crops: K, above 0 to cut at the fixed crop ``crop@r#k`` of `crop_number`.
    """

    def __init__(
        self, samples: Sequence[Sample], *, seed: int, augment: bool, aligned_crops: int = 0
    ) -> None:
        self._samples = samples
        self._seed = seed
        self._augment = augment
        self._aligned_crops = aligned_crops

    def __len__(self) -> int:
        """How many samples there are; a sample may be drawn any number of times."""
        return len(self._samples)

    def __getitem__(self, draw: Draw) -> TrainingPair:
        """Cut the pair of ``draw``.

        Raises:
            DataError: a picture cannot be read, has no ground truth, or the two differ in size.
        """
        sample = self._samples[draw.sample]
        if sample.clean is None:
            raise DataError(f"a training sample has no ground truth: {sample.id}")
        random = generator("pair", self._seed, sample.id, draw.epoch, draw.repeat)
        size = sample.clean.size()
        if sample.noise_sigma is None and sample.degraded.size() != size:
            raise DataError(
                f"degraded and clean differ in size: {sample.id}",
                got=f"{sample.degraded.name}: {sample.degraded.size()}",
                expected=f"{sample.clean.name}: {size}",
            )
        top, left = self._place(sample, draw, size, random)
        clean = _cut(sample.clean, size, top, left, draw.resolution)
        turn = int(random.integers(8)) if self._augment else 0
        clean = dihedral(clean, turn)
        if sample.noise_sigma is not None:
            # Fresh noise every time, added last: it is neither turned nor cut with the picture.
            parts = (self._seed, sample.id, draw.epoch, draw.repeat)
            return TrainingPair(add_noise(clean, sample.noise_sigma, *parts), clean)
        degraded = _cut(sample.degraded, size, top, left, draw.resolution)
        return TrainingPair(dihedral(degraded, turn), clean)

    def _place(
        self, sample: Sample, draw: Draw, size: tuple[int, int], random: np.random.Generator
    ) -> tuple[int, int]:
        if self._aligned_crops:
            k = crop_number(self._seed, sample.id, draw.epoch, draw.repeat, self._aligned_crops)
            top, left, _, _ = View("crop", draw.resolution, k).box(*size)
            return top, left
        free = [max(0, side - draw.resolution) for side in size]
        return int(random.integers(free[0] + 1)), int(random.integers(free[1] + 1))


def crop_number(seed: int, sample_id: str, epoch: int, repeat: int, count: int) -> int:
    """Which of ``count`` fixed crops a draw uses: for its pixels here, for its view elsewhere."""
    return int(generator("crop", seed, sample_id, epoch, repeat).integers(count))


def prompt_number(seed: int, sample_id: str, epoch: int, repeat: int, count: int) -> int:
    """Which of ``count`` prompts a draw's guidance answers."""
    return int(generator("prompt", seed, sample_id, epoch, repeat).integers(count))


def _cut(source: PixelSource, size: tuple[int, int], top: int, left: int, side: int) -> ImageArray:
    rows, columns = min(side, size[0]), min(side, size[1])
    window = source.read_crop(top, left, rows, columns)
    return window if window.shape[:2] == (side, side) else mirror_to(window, side, side)


def dihedral(image: ImageArray, turn: int) -> ImageArray:
    """One of the eight flips and rotations of (r, r, 3): ``turn`` from 0, the identity, to 7."""
    turned = np.rot90(image, turn % 4)
    return np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)


def collate_pairs(pairs: Sequence[TrainingPair]) -> tuple[Tensor, Tensor]:
    """Stack pairs into two (B, 3, r, r) uint8 tensors, channels last in memory."""
    degraded = torch.from_numpy(np.stack([pair.degraded for pair in pairs]))
    clean = torch.from_numpy(np.stack([pair.clean for pair in pairs]))
    return degraded.permute(0, 3, 1, 2), clean.permute(0, 3, 1, 2)


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


def hold_in_memory(samples: Sequence[Sample], *, processes: int = 1) -> tuple[Sample, ...] | None:
    """Wrap every picture in a `HeldSource` where all of them fit; None where they do not.

    Samples of one scene share one ground truth. A noisy sample needs its clean picture only.

    Args:
        samples: their pictures are to be kept.
        processes: on this machine, each of which keeps its own; they ask before any has decoded.
    """
    budget = int(SHARE * free_memory() / processes)
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


def _sources(sample: Sample) -> list[PixelSource]:
    noisy = sample.noise_sigma is not None
    sources = [None if noisy else sample.degraded, sample.clean]
    return [source for source in sources if source is not None]
