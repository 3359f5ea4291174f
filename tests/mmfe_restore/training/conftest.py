"""A tiny synthetic set with a cache of the guide `oracle`, and a recipe that trains on it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.guides import load_guide
from mmfe_cache.images import write_png
from mmfe_cache.precompute import build_cache
from mmfe_cache.store import store_path
from mmfe_restore.recipes import load_recipe
from mmfe_restore.training import train

from .runs import rows

TINY = (
    "guide=oracle",
    "data.repeats={}",
    "train.view=whole",
    "model.width=4",
    "model.num_blocks=[1,1,1,1]",
    "model.num_heads=[1,1,2,2]",
    "model.num_refinement_blocks=0",
    "model.num_experts=3",
    "model.guidance_dropout=0.25",
    "train.learning_rate=1e-3",
    # 15 draws: epochs of 3, 3 and 7 steps, with draws left over.
    "train.stages=[{epochs: 2, resolution: 16, batch_size: 4},"
    " {epochs: 1, resolution: 32, batch_size: 2}]",
    "train.log_every=1",
    "train.checkpoint_every=0",
)
STEPS = 13


@dataclass(frozen=True)
class World:
    """Where the set and its cache lie."""

    root: Path
    cache: Path
    tiny = TINY

    def recipe(self, *overrides, base=TINY):
        return load_recipe("demo", [*base, *overrides])

    def samples(self):
        return load_dataset("cdd11", "train", self.root).samples

    @property
    def sources(self):
        return {"root": self.root, "cache": self.cache}


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(5):
        # Smooth random colours: any picture will do, but noise would hide the degradations.
        coarse = random.integers(0, 256, (4, 5, 3)).astype(np.uint8)
        write_png(photos / f"{number}.png", np.kron(coarse, np.ones((10, 10, 1), np.uint8)))
    root, cache = folder / "set", folder / "cache"
    classes = ("low", "haze", "low_haze")
    write_synth(photos, root, test_photos=_other(folder, random), compositions=classes)
    guide = load_guide("oracle")
    for split, views in (("train", ("whole@16", "whole@32")), ("test", ("whole@32",))):
        samples = load_dataset("cdd11", split, root)
        build_cache(samples, guide, views, store_path("cdd11", split, "oracle", root=cache))
    return World(root, cache)


def _other(folder, random):
    photos = folder / "test-photos"
    photos.mkdir()
    write_png(photos / "t.png", random.integers(0, 256, (40, 50, 3)).astype(np.uint8))
    return photos


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As many as processes of their own have: sums in another order differ in last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    report = train(world.recipe(), **world.sources, out=out)
    assert report.completed
    assert len(rows(out)) == STEPS
    return out
