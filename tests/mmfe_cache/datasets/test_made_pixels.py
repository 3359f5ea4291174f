"""A cache of the data set `synth` belongs to the pictures it was built from, not to their ids."""

import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.cache_support import TinyGuide, tree
from mmfe_cache.datasets import load_dataset
from mmfe_cache.degradations import light
from mmfe_cache.errors import CacheError
from mmfe_cache.images import write_png
from mmfe_cache.precompute import build_cache


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcdefgh":
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        image = small.resize((40, 32), Image.Resampling.BICUBIC)
        (tmp_path / "photos").mkdir(exist_ok=True)
        write_png(tmp_path / "photos" / f"{name}.png", np.asarray(image))
    say(tmp_path / "photos", "varied_share: 0.5")
    return tmp_path / "photos"


def say(root, settings):
    (root / "degradations.yaml").write_text(settings)


def build(root):
    samples = load_dataset("synth", "train", root)
    return build_cache(samples, TinyGuide(), ["whole@16"], root.parent / "a.zarr", workers=1)


def test_a_cache_of_other_weather_is_refused_although_its_ids_are_the_same(root, monkeypatch):
    report = build(root)
    before = tree(root.parent / "a.zarr")
    assert build(root).encodings == 0
    monkeypatch.setattr(light, "VARIED_AIRLIGHT", (0.5, 0.9))  # another version of varied haze
    with pytest.raises(CacheError, match="have changed since") as caught:
        build(root)
    assert "haze" in caught.value.problem
    assert "--out" in str(caught.value)
    monkeypatch.undo()
    say(root, "varied_share: 0")
    with pytest.raises(CacheError, match="have changed since"):
        build(root)
    say(root, "varied_share: 0.5")
    assert build(root).reused == report.encodings
    assert tree(root.parent / "a.zarr") == before


def test_a_cache_may_outlive_its_photographs(root):
    build(root)
    samples = load_dataset("synth", "train", root)
    shutil.rmtree(root)
    again = build_cache(samples, TinyGuide(), ["whole@16"], root.parent / "a.zarr", workers=1)
    assert again.encodings == 0
