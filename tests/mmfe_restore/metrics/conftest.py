"""Image pairs of every kind that a test set can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def photograph(name: str) -> np.ndarray:
    path = Path(skimage.__file__).parent / "data" / name
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255


def disturbed(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    kind = random.integers(4)
    if kind == 0:
        other = image + random.normal(0, random.uniform(0.001, 0.4), image.shape)
    elif kind == 1:
        other = image * random.uniform(0.1, 1.2) + random.uniform(-0.2, 0.2)
    elif kind == 2:
        other = np.roll(image, int(random.integers(1, 4)), axis=int(random.integers(2)))
    else:
        other = random.random(image.shape)
    return np.clip(other, 0, 1).astype(np.float32)


def make_pairs(count: int = 200) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(8)
    photographs = [photograph(name) for name in PHOTOGRAPHS]
    pairs = []
    for index in range(count):
        if index % 2:
            height, width = random.integers(11, 90, 2)
            clean = random.random((height, width, 3)).astype(np.float32)
        else:
            whole = photographs[index // 2 % 4]
            height, width = random.integers(11, 120, 2)
            top, left = (
                random.integers(0, whole.shape[0] - height),
                random.integers(0, whole.shape[1] - width),
            )
            clean = whole[top : top + height, left : left + width]
        if index % 10 == 3:
            clean = np.full_like(clean, random.random())
        other = disturbed(clean, random)
        if index % 10 == 7:
            other = np.full_like(clean, random.random())
        pairs.append((other, clean))
    return pairs


@pytest.fixture(scope="session")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    return make_pairs()
