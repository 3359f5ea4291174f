import multiprocessing

import numpy as np
import pytest

from mmfe_cache.datasets import (
    DerivedSource,
    NoisySource,
    SyntheticSource,
    WindowSource,
    add_noise,
    load_dataset,
)
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, pixel_digest
from mmfe_cache.samples import PixelSource


@pytest.fixture
def clean(tmp_path, make):
    return FileSource(make(tmp_path / "clean.png", height=64, width=80))


def sources(clean):
    return (
        NoisySource(clean, 25, "noise-25/clean"),
        WindowSource(clean, 8, 4, 40, 60),
        SyntheticSource(clean, "low_haze_snow", ("s", 1)),
        WindowSource(NoisySource(clean, 25, "x"), 0, 0, 16, 16),
    )


def test_derived_sources_keep_the_contract(clean, tmp_path):
    for source in sources(clean):
        assert isinstance(source, PixelSource)
        assert isinstance(source, DerivedSource)
        whole = source.read()
        assert whole.shape == (*source.size(), 3)
        assert np.array_equal(whole, source.read())
        assert np.array_equal(source.read_crop(3, 5, 7, 9), whole[3:10, 5:14])
        with pytest.raises(DataError, match="does not lie inside"):
            source.read_crop(0, 0, *(side + 1 for side in source.size()))
    assert not isinstance(clean, DerivedSource)


def test_noise_has_its_deviation_and_truncates_as_the_peers_do():
    grey = np.full((256, 256, 3), 128, np.uint8)
    for sigma in (15, 25, 50):
        noise = add_noise(grey, sigma, "id").astype(float) - 128
        # Cutting to uint8 instead of rounding lowers the mean by one half.
        assert noise.mean() == pytest.approx(-0.5, abs=0.15)
        assert noise.std() == pytest.approx(sigma, rel=0.02 if sigma < 50 else 0.04)
    black = add_noise(np.zeros((64, 64, 3), np.uint8), 50, "id")
    assert (black == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_noise_depends_on_the_name_only():
    grey = np.full((16, 16, 3), 128, np.uint8)
    assert np.array_equal(add_noise(grey, 25, "a", 1), add_noise(grey, 25, "a", 1))
    assert not np.array_equal(add_noise(grey, 25, "a", 1), add_noise(grey, 25, "a", 2))
    assert not np.array_equal(add_noise(grey, 25, "a"), add_noise(grey, 25, "b"))


def digest(sample):
    return sample.id, pixel_digest(sample.degraded.read())


def test_every_worker_in_any_order_reads_the_same_bytes(tmp_path, make):
    for name in ("0000", "0001", "0002"):
        make(tmp_path / "CBSD68" / f"{name}.png")
    noisy = load_dataset("denoise", "test", tmp_path).samples
    for name in ("p1", "p2"):
        make(tmp_path / "photos" / f"{name}.png")
    synthetic = load_dataset("synth", "train", tmp_path / "photos").samples
    samples = [*noisy, *synthetic]
    here = dict(map(digest, samples))
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(2)
    there = dict(pool.imap_unordered(digest, samples[::-1], chunksize=3))
    pool.close()
    pool.join()  # workers end by themselves, no signal is needed
    assert here == there
    assert len(set(here.values())) == len(here), "two samples have the same pixels"
