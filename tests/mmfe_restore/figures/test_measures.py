"""The numbers behind the figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmfe_restore.figures.canvas import in_order, short
from mmfe_restore.figures.embeddings import class_similarities
from mmfe_restore.figures.similarity import alignment, cosine, plane, spread_sample
from mmfe_restore.figures.spectrum import centroid, radial_spectrum


@pytest.mark.parametrize("frequency", [0.0625, 0.125, 0.25, 0.375])
def test_the_centroid_of_a_wave_is_its_frequency(frequency):
    wave = np.cos(2 * np.pi * frequency * np.arange(64))
    maps = np.tile(wave, (2, 64, 1))
    frequencies, shares = radial_spectrum(maps)
    assert shares.sum() == pytest.approx(1)
    assert centroid(frequencies, shares) == pytest.approx(frequency, abs=0.5**0.5 / 32)


def test_a_constant_map_has_no_centroid():
    assert math.isnan(centroid(*radial_spectrum(np.full((1, 8, 8), 3.0))))


def test_alignment_of_a_space_with_itself_its_rotation_and_noise():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8))
    rotation, _ = np.linalg.qr(random.normal(size=(8, 8)))
    assert alignment(cosine(vectors), cosine(vectors @ rotation)) == pytest.approx(1)
    noise = random.normal(size=(60, 8))
    assert abs(alignment(cosine(vectors), cosine(noise))) < 0.15


def test_alignment_with_a_router_that_tells_nothing_apart_is_undefined():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(9, 4))
    assert math.isnan(alignment(cosine(vectors), cosine(np.ones((9, 3)))))


def test_plane_keeps_the_distances_of_flat_data():
    random = np.random.default_rng(0)
    flat = random.normal(size=(20, 2))
    lifted = np.concatenate([flat, np.zeros((20, 5))], axis=1)
    coordinates, share = plane(lifted)
    assert share == pytest.approx(1)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (flat, coordinates)]
    np.testing.assert_allclose(distances[0], distances[1], atol=1e-9)


def test_spread_sample_takes_every_class_alike():
    labels = ["a"] * 50 + ["b"] * 5 + ["c"] * 20
    chosen = [labels[i] for i in spread_sample(labels, 30)]
    assert {label: chosen.count(label) for label in "abc"} == {"a": 10, "b": 5, "c": 10}


def test_names_and_order_are_the_papers():
    assert [short(name) for name in ("low", "low_haze_rain", "noise-25")] == [
        "L", "L+H+R", "noise-25",
    ]  # fmt: skip
    labels = ["snow", "noise-25", "low_haze", "low", "blur"]
    assert in_order(labels) == ["low", "snow", "low_haze", "blur", "noise-25"]


@pytest.mark.filterwarnings("error")
def test_class_similarities_equal_a_plain_mean_and_pair_no_sample_with_itself():
    vectors = np.random.default_rng(0).normal(size=(6, 5))
    labels = ["a", "b", "a", "c", "b", "a"]
    similarity = cosine(vectors)
    found = class_similarities(vectors, labels, ["a", "b", "c"])
    assert found[0, 0] == pytest.approx(
        np.mean([similarity[0, 2], similarity[0, 5], similarity[2, 5]])
    )
    assert found[0, 1] == pytest.approx(similarity[np.ix_([0, 2, 5], [1, 4])].mean())
    assert math.isnan(found[2, 2])
    np.testing.assert_allclose(found, found.T)
