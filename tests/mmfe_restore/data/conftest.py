"""Small samples in memory, with the real `Sample` type."""

import numpy as np
import pytest

from mmfe_cache.samples import Sample

from ...small import ArraySource


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
