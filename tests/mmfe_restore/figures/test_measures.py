"""The numbers behind the figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmfe_restore.evaluation.report.pictures import mean_error
from mmfe_restore.figures.canvas import abbreviated, in_order
from mmfe_restore.figures.embeddings import class_similarities
from mmfe_restore.figures.routing import class_weights
from mmfe_restore.figures.scatter import alignment, cosine_similarity as cosine, pca, spread_sample
from mmfe_restore.figures.spectrum import centroid, measure_change, radial_spectrum
from mmfe_restore.model.mofe import bands_at, picture_of
from mmfe_restore.recipes.schema import ModelConfig


@pytest.mark.parametrize("frequency", [0.0625, 0.125, 0.25, 0.375])
def test_the_centroid_of_a_wave_is_its_frequency(frequency):
    wave = np.cos(2 * np.pi * frequency * np.arange(64))
    maps = np.tile(wave, (2, 64, 1))
    frequencies, shares = radial_spectrum(maps)
    assert shares.sum() == pytest.approx(1)
    assert centroid(frequencies, shares) == pytest.approx(frequency, abs=0.5**0.5 / 32)


def test_a_constant_map_has_no_centroid():
    assert math.isnan(centroid(*radial_spectrum(np.full((1, 8, 8), 3.0))))


SLOW = np.cos(2 * np.pi * np.arange(32) / 32)[:, None] * np.ones((1, 32))
"""One wave along the rows of a band."""
FAST = np.cos(2 * np.pi * 10 * np.arange(32) / 32)[:, None] * np.ones((1, 32))


def by_slices(lh, hl, hh):
    """The picture of three Haar bands, LL = 0, written from the definition (Eq. 3)."""
    picture = np.empty((2 * lh.shape[0], 2 * lh.shape[1]))
    picture[0::2, 0::2] = lh + hl + hh
    picture[0::2, 1::2] = lh - hl - hh
    picture[1::2, 0::2] = -lh + hl - hh
    picture[1::2, 1::2] = -lh - hl + hh
    return picture / 2


def by_definition(picture):
    """The centroid of a picture's radial spectrum from the double sum, step by step."""
    height, width = picture.shape
    rows, columns = np.arange(height), np.arange(width)
    up = np.exp(-2j * np.pi * np.outer(rows, rows) / height)
    across = np.exp(-2j * np.pi * np.outer(columns, columns) / width)
    power = np.abs(up @ (picture - picture.mean()) @ across) ** 2
    total = weighed = 0.0
    step = 0.5**0.5 / 32
    for u in range(height):
        for v in range(width):
            radius = math.hypot(min(u, height - u) / height, min(v, width - v) / width)
            weighed += (min(int(radius / step), 31) + 0.5) * step * power[u, v]
            total += power[u, v]
    return weighed / total


@pytest.mark.parametrize(
    ("band", "wave", "expected"),
    [("HH", SLOW, 0.696), ("HL", FAST, 0.539), ("LH", SLOW, 0.474), ("HH", SLOW * 0 + 1, 0.696)],
    ids=["slow HH", "fast HL", "slow LH", "constant HH"],
)
@pytest.mark.parametrize("low_band", [False, True])
def test_a_change_of_a_subband_is_measured_on_the_pictures_grid(band, wave, expected, low_band):
    bands = dict.fromkeys(("LH", "HL", "HH"), np.zeros((32, 32))) | {band: wave}
    # LH, HL, HH, three colours each; with the LL band in front where the experts see it.
    channels = [[*bands.values()][n // 3] for n in range(9)]
    channels = [np.zeros((32, 32))] * 3 * low_band + channels
    change = picture_of(
        torch.from_numpy(np.stack(channels, axis=-1))[None], ModelConfig(low_band=low_band)
    )
    picture = by_slices(*bands.values())
    np.testing.assert_allclose(change[0], np.stack([picture] * 3), atol=1e-12)
    found = measure_change(1, change[0].numpy())
    assert found.centroid == pytest.approx(expected, abs=5e-4)
    assert found.centroid == pytest.approx(by_definition(picture), abs=1e-9)
    np.testing.assert_allclose(found.change, np.abs(picture), atol=1e-12)


def test_a_change_of_the_ll_band_reaches_the_picture_where_experts_see_it():
    bands = torch.zeros(1, 2, 2, 12, dtype=torch.float64)
    bands[0, 0, 1, 2] = 4.0  # blue
    picture = picture_of(bands, ModelConfig(low_band=True))
    expected = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    expected[0, 2, :2, 2:] = 2.0
    torch.testing.assert_close(picture, expected)


@pytest.mark.parametrize(
    ("experts", "low_band"), [("frequency", False), ("frequency", True), ("spatial", False)]
)
def test_the_picture_of_an_images_bands_is_the_image(experts, low_band):
    config = ModelConfig(experts=experts, low_band=low_band)
    image = torch.rand(1, 3, 12, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    found = picture_of(bands_at(image, (12, 8), config), config)
    if experts == "frequency" and not low_band:
        # What is missing is LL: the mean of each block of 2 × 2.
        mean = image.unflatten(2, (6, 2)).unflatten(4, (4, 2)).mean((3, 5), keepdim=True)
        image = image - mean.expand(1, 3, 6, 2, 4, 2).flatten(4, 5).flatten(2, 3)
    torch.testing.assert_close(found, image, atol=1e-6, rtol=0)  # its filters are float32


def test_alignment_of_a_space_with_itself_its_rotation_and_noise():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8))
    rotation, _ = np.linalg.qr(random.normal(size=(8, 8)))
    assert alignment(cosine(vectors), cosine(vectors @ rotation)) == pytest.approx(1)
    noise = random.normal(size=(60, 8))
    assert abs(alignment(cosine(vectors), cosine(noise))) < 0.15


def at(*degrees):
    """Unit vectors of a plane at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_alignment_in_numbers():
    # Cosines (1/2, 0, √3/2) and (1/2, -1/2, 1/2) of the three pairs.
    x, y = np.array([0.5, 0.0, 0.75**0.5]), np.array([0.5, -0.5, 0.5])
    x, y = x - x.mean(), y - y.mean()
    expected = (x @ y) / ((x @ x) * (y @ y)) ** 0.5
    assert expected == pytest.approx(0.907, abs=5e-4)
    assert alignment(cosine(at(0, 60, 90)), cosine(at(0, 60, 120))) == pytest.approx(expected)
    # The length of a vector does not count, nor the pairs of a sample with itself.
    longer = at(0, 60, 120) * [[3], [1], [7]]
    assert alignment(cosine(at(0, 60, 90)), cosine(longer)) == pytest.approx(expected)


def test_the_share_of_variance_in_numbers():
    # Along three axes: sums of squares 8, 2 and 1/2.
    points = np.concatenate([np.diag([2.0, 1.0, 0.5]), -np.diag([2.0, 1.0, 0.5])])
    assert pca(points)[1] == pytest.approx(10 / 10.5)


def test_weights_by_class_are_means_over_its_samples():
    weights = np.array([[0.2, 0.4], [0.9, 0.1], [0.6, 0.0]])
    found = class_weights(weights, ["rain", "low", "rain"], ["low", "rain"])
    np.testing.assert_allclose(found, [[0.9, 0.1], [0.4, 0.2]])


def test_an_error_map_in_numbers():
    clean = np.full((2, 2, 3), 100, dtype=np.uint8)
    picture = clean.copy()
    picture[0, 0] = (100, 49, 202)  # 0, 51 and 102 of 255 away: 0.2 in the mean
    np.testing.assert_allclose(mean_error(picture, clean), [[0.2, 0], [0, 0]], atol=1e-7)
    np.testing.assert_allclose(mean_error(clean, picture), mean_error(picture, clean))


def test_alignment_with_a_router_that_tells_nothing_apart_is_undefined():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(9, 4))
    assert math.isnan(alignment(cosine(vectors), cosine(np.ones((9, 3)))))


def test_plane_keeps_the_distances_of_flat_data():
    random = np.random.default_rng(0)
    flat = random.normal(size=(20, 2))
    lifted = np.concatenate([flat, np.zeros((20, 5))], axis=1)
    coordinates, share = pca(lifted)
    assert share == pytest.approx(1)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (flat, coordinates)]
    np.testing.assert_allclose(distances[0], distances[1], atol=1e-9)


def test_spread_sample_takes_every_class_alike():
    labels = ["a"] * 50 + ["b"] * 5 + ["c"] * 20
    chosen = [labels[i] for i in spread_sample(labels, 30)]
    assert {label: chosen.count(label) for label in "abc"} == {"a": 10, "b": 5, "c": 10}


def test_names_and_order_are_the_papers():
    assert [abbreviated(name) for name in ("low", "low_haze_rain", "noise-25")] == [
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
