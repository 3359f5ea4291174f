"""A small test set, its cache by the oracle, and small restorers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfe_cache.guides import load_guide
from mmfe_cache.precompute import build_cache
from mmfe_cache.samples import ImageArray, Sample, SampleSet
from mmfe_cache.store import CacheReader, open_cache
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import Recipe

from ... import small
from ...small import ArraySource

VIEW = "whole@32"
LABELS = {"low": {"low": 0.6}, "rain": {"rain": 0.4}, "low_rain": {"low": 0.3, "rain": 0.9}}


def photograph(seed: int, height: int, width: int) -> ImageArray:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / 16.0
    waves = [np.sin(rows * f + p) + np.cos(columns * g) for f, g, p in random.random((3, 3)) * 3]
    image = (np.stack(waves, axis=2) + 2) / 4 * 255
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def make_samples(scenes: int = 3, labels: dict | None = None, dataset: str = "mine") -> SampleSet:
    samples = []
    for label, severities in (LABELS if labels is None else labels).items():
        for scene in range(scenes):
            clean = photograph(scene, 40 + 4 * scene, 52)
            random = np.random.default_rng([scene, len(label)])
            noisy = clean * (1 - 0.5 * severities.get("low", 0)) + random.normal(0, 12, clean.shape)
            degraded = np.clip(noisy, 0, 255).astype(np.uint8)
            samples.append(
                Sample(
                    id=f"{label}/{scene:02d}",
                    degraded=ArraySource(f"{label}/{scene:02d}.png", degraded),
                    clean=ArraySource(f"clear/{scene:02d}.png", clean),
                    label=label,
                    scene=f"{scene:02d}",
                    severities=severities,
                )
            )
    ordered = tuple(sorted(samples, key=lambda sample: sample.id))
    return SampleSet(dataset, "test", Path("nowhere"), "made up", ordered)


def small_recipe(**model: object) -> Recipe:
    return small.small_recipe("oracle", VIEW, **model)


def small_restorer(recipe: Recipe, seed: int = 0) -> Restorer:
    torch.manual_seed(seed)
    return Restorer(recipe.model).eval()


@pytest.fixture(scope="session")
def samples() -> SampleSet:
    return make_samples()


@pytest.fixture(scope="session")
def guided() -> tuple[Restorer, Recipe]:
    recipe = small_recipe()
    return small_restorer(recipe), recipe


@pytest.fixture(scope="session")
def unguided() -> tuple[Restorer, Recipe]:
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    return small_restorer(recipe), recipe


@pytest.fixture(scope="session")
def cache(samples: SampleSet, tmp_path_factory: pytest.TempPathFactory) -> CacheReader:
    path = tmp_path_factory.mktemp("cache") / "oracle.zarr"
    build_cache(samples, load_guide("oracle"), [VIEW], path)
    return open_cache(path)


@pytest.fixture
def hostile() -> SampleSet:
    """Names that would be markup, were they not escaped."""
    found = make_samples(2, {"low": {"low": 0.5}})
    name = '</script><img src=x onerror="document.title=1">&\u2028'
    renamed = [
        replace(sample, id=f"{name}/{i}", label=name, scene=f"{name}{i}")
        for i, sample in enumerate(found)
    ]
    return replace(found, samples=tuple(renamed))
