import numpy as np
import pytest

from mmfe_cache.datasets import load_dataset
from mmfe_cache.images import write_png
from mmfe_cache.packing import forget_packs
from mmfe_cache.seeds import generator


@pytest.fixture(autouse=True)
def fresh_packs():
    forget_packs()
    yield
    forget_packs()


@pytest.fixture
def lol(tmp_path):
    """LOL-v1's layout with four pairs of several sizes, one of them tiny."""
    root = tmp_path / "lol"
    for number, (height, width) in enumerate([(100, 130), (64, 64), (1, 1), (65, 200)]):
        for side in ("low", "high"):
            rng = generator("pack", side, number)
            smooth = rng.integers(0, 40, (height, width, 3)).cumsum(0) % 251
            write_png(root / "our485" / side / f"p {number}ü.png", smooth.astype(np.uint8))
    return root


@pytest.fixture
def samples(lol):
    return load_dataset("lol-v1", "train", lol)
