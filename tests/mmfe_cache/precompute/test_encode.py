"""Samples with a partial target ask for what is to be taken away, whoever shares their batch."""

import numpy as np
import pytest

from benchmarks.cache_support import TinyGuide
from mmfe_cache import open_cache
from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.degradations import split_class
from mmfe_cache.errors import GuideError
from mmfe_cache.guides import load_guide
from mmfe_cache.images import write_png
from mmfe_cache.precompute import build_cache
from mmfe_cache.views import View


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partial")
    random = np.random.default_rng(0)
    for name in "abc":
        image = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        write_png(folder / "photos" / f"{name}.png", image.repeat(4, 0).repeat(4, 1))
    out = folder / "set"
    classes = ["low_rain", "haze_snow"]
    write_synth(folder / "photos", out, compositions=classes, test_share=0, partial_share=1)
    return load_dataset("cdd11", "train", out)


def test_the_cache_holds_what_asks_for_it(samples, tmp_path):
    guide = load_guide("scene", device="cpu")
    assert len(samples) == 12
    build_cache(samples, guide, ["native"], tmp_path / "a.zarr", batch_size=5, workers=1)
    reader = open_cache(tmp_path / "a.zarr")
    for index, sample in enumerate(samples):
        expected = guide.encode([View.parse("native").render(sample.degraded.read())])
        _, wanted = split_class(sample.label)
        if wanted is not None:
            before, expected = expected, guide.only(expected, wanted)
            assert (expected.answer - before.answer).abs().max() > 0.01
        found = reader.gather([index], "native", tokens="all")
        for name, tensor in expected.present().items():
            assert (getattr(found, name).float() - tensor).abs().max() < 0.01


def test_the_oracle_reads_the_severities_of_what_is_to_be_taken_away(samples, tmp_path):
    oracle = load_guide("oracle", device="cpu")
    build_cache(samples, oracle, ["native"], tmp_path / "a.zarr", workers=1)
    found = open_cache(tmp_path / "a.zarr").gather(range(len(samples)), "native", tokens="all")
    plain = {s.id: i for i, s in enumerate(samples) if split_class(s.label)[1] is None}
    for index, sample in enumerate(samples):
        composition, wanted = split_class(sample.label)
        if wanted is not None:
            whole = plain[f"{composition}/{sample.scene}"]
            assert (found.answer[index] - found.answer[whole]).abs().max() > 0.01


def test_another_guide_is_told_that_it_cannot_ask(samples, tmp_path):
    with pytest.raises(GuideError, match="cannot ask for some degradations alone"):
        build_cache(samples, TinyGuide(), ["whole@16"], tmp_path / "a.zarr", workers=1)
