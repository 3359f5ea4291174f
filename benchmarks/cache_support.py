"""A tiny guide and synthetic samples that the cache's benchmarks and tests share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmfe_cache.embeddings import NUM_TOKENS, Embeddings
from mmfe_cache.errors import DataError
from mmfe_cache.samples import ImageArray, Sample, SampleSet


class TinyGuide:
    """A deterministic stand-in for a network: exact, fast, and sensitive to what must be fixed.

    Every embedding depends on the picture and on the batch it was encoded in, as a GPU's do to
    rounding, so that a build that changes the batches changes the bytes.

    Args:
        dim: D.
        seconds: how long a batch takes.
        revision: part of the fingerprint and of the values.
        spoil: the answer of any batch becomes this where it is not None.
    """

    reads: Literal["pixels", "severities"] = "pixels"

    def __init__(
        self, dim: int = 8, *, seconds: float = 0.0, revision: int = 1, spoil: float | None = None
    ) -> None:
        self.name = "tiny"
        self.dim = dim
        self.calls = 0
        self.batches: list[int] = []
        self._seconds, self._revision, self._spoil = seconds, revision, spoil

    def prepare(self, image: ImageArray) -> Any:
        """Sums that stand for the picture, and its size."""
        data = image.astype(np.int64)
        weights = np.arange(1, data.size + 1).reshape(data.shape) % 251
        return np.array([*data.sum(axis=(0, 1)), (data * weights).sum(), *data.shape[:2]])

    def encode_prepared(self, prepared: Sequence[Any]) -> Embeddings:
        """Embeddings in [-1, 1] of what `prepare` returned."""
        if self._seconds:
            time.sleep(self._seconds)
        self.calls += len(prepared)
        self.batches.append(len(prepared))
        rows = np.stack(
            [
                self._row(key, place, len(prepared), 2 * NUM_TOKENS + 1)
                for place, key in enumerate(prepared)
            ]
        )
        values = torch.from_numpy(rows.astype(np.float32))
        if self._spoil is not None:
            values[-1, -1, 0] = self._spoil
        image, joint, answer = values.split([NUM_TOKENS, NUM_TOKENS, 1], dim=1)
        return Embeddings(image, joint, answer[:, 0])

    def encode(self, images: Sequence[ImageArray]) -> Embeddings:
        """Prepare and encode."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_samples(self, samples: Sequence[Sample]) -> Embeddings:
        """Not this guide's way."""
        raise NotImplementedError

    def fingerprint(self) -> Mapping[str, Any]:
        """What changes the values."""
        return {"revision": self._revision, "prompt": "what is it?", "pooling": {"grid": 4}}

    def describe(self) -> Mapping[str, Any]:
        """For people."""
        return {"kind": "tiny", "dim": self.dim}

    def _row(self, key: Any, place: int, size: int, tokens: int) -> Any:
        steps = np.arange(tokens * self.dim).reshape(tokens, self.dim)
        seed = int(np.abs(key).sum()) + 7 * place + 131 * size + 1009 * self._revision
        return np.sin(steps * 0.37 + seed % 10_007)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A picture drawn from a number: a `PixelSource` without a file.

    Attributes:
        seed: which picture.
        height: in pixels.
        width: in pixels.
        broken: whether reading it fails.
    """

    seed: int
    height: int = 24
    width: int = 32
    broken: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"pattern-{self.seed}"

    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def read(self) -> ImageArray:
        """The picture."""
        if self.broken:
            raise DataError(f"{self.name} is truncated", got="half a picture")
        rng = np.random.default_rng(self.seed)
        return rng.integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """A window of it."""
        return self.read()[top : top + height, left : left + width]


def sample_set(
    count: int,
    *,
    dataset: str = "patterns",
    split: str = "train",
    first: int = 0,
    broken: Sequence[int] = (),
) -> SampleSet:
    """``count`` patterned samples; those numbered in ``broken`` cannot be read."""
    samples = tuple(
        Sample(
            id=f"haze/{number:05d}",
            degraded=Pattern(first + number, broken=number in broken),
            clean=None,
            label="haze",
            scene=f"{number:05d}",
        )
        for number in range(count)
    )
    return SampleSet(dataset, split, Path(), "patterns", samples)


def tree(path: Path) -> dict[str, bytes]:
    """Every file under ``path`` with its bytes, by relative name."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
