"""Small samples in memory, with the real `Sample` type."""

from dataclasses import dataclass

import numpy as np
import pytest

from mmfe_cache.samples import Sample


@dataclass(frozen=True)
class ArraySource:
    """A picture that is an array already."""

    name: str
    pixels: np.ndarray

    def size(self):
        return self.pixels.shape[:2]

    def read(self):
        return self.pixels

    def read_crop(self, top, left, height, width):
        return self.pixels[top : top + height, left : left + width]


def build_samples(scenes=5, labels=("haze", "low"), size=(40, 56), sigma=None):
    random = np.random.default_rng(0)
    samples = []
    for scene in range(scenes):
        clean = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        for number, label in enumerate(labels):
            samples.append(
                Sample(
                    id=f"{label}/{scene}",
                    degraded=ArraySource(f"{label}/{scene}.png", clean // (2 + number)),
                    clean=ArraySource(f"clear/{scene}.png", clean),
                    label=label,
                    scene=str(scene),
                    noise_sigma=sigma,
                )
            )
    return tuple(sorted(samples, key=lambda sample: sample.id))


@pytest.fixture
def make_samples():
    return build_samples


@pytest.fixture
def array_source():
    return ArraySource


@pytest.fixture
def samples():
    return build_samples()
