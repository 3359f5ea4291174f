"""Training pairs are pure functions of what was drawn, and cut both pictures alike."""

import numpy as np
import pytest
import torch

from mmfe_cache.errors import DataError
from mmfe_cache.samples import Sample
from mmfe_cache.views import View
from mmfe_restore.data import Draw, TrainingPairs, collate_pairs
from mmfe_restore.data.dataset import crop_number, dihedral


def pairs_of(samples, **options):
    return TrainingPairs(samples, **{"seed": 0, "augment": True, **options})


def test_degraded_and_clean_show_the_same_window_turned_alike(samples):
    pairs = pairs_of(samples)
    for sample in range(len(samples)):
        for repeat in range(8):
            pair = pairs[Draw(sample, 0, repeat, 16)]
            divisor = 2 + (samples[sample].label == "low")
            np.testing.assert_array_equal(pair.degraded, pair.clean // divisor)
            assert pair.clean.shape == (16, 16, 3)


def test_a_pair_depends_on_seed_id_epoch_and_repeat_only(samples):
    draw = Draw(3, 2, 1, 16)
    again = pairs_of(samples)[draw]
    np.testing.assert_array_equal(pairs_of(samples)[draw].clean, again.clean)
    # The same sample elsewhere in another set gives the same crop.
    moved = pairs_of(samples[3:])[Draw(0, 2, 1, 16)]
    np.testing.assert_array_equal(moved.clean, again.clean)
    others = [
        pairs_of(samples, seed=1)[draw],
        pairs_of(samples)[Draw(3, 3, 1, 16)],
        pairs_of(samples)[Draw(3, 2, 2, 16)],
    ]
    assert all(not np.array_equal(other.clean, again.clean) for other in others)


def test_the_eight_turns_are_distinct_and_the_first_is_the_identity():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    turns = [dihedral(image, turn).tobytes() for turn in range(8)]
    assert len(set(turns)) == 8
    np.testing.assert_array_equal(dihedral(image, 0), image)


def test_all_turns_and_all_corners_are_drawn(array_source):
    image = np.zeros((8, 8, 3), np.uint8)
    image[0, 0], image[0, 7], image[7, 0] = 10, 20, 30
    sample = Sample("a/0", array_source("d", image), array_source("c", image), "a", "0")
    pairs = pairs_of([sample])
    seen = {pairs[Draw(0, 0, repeat, 8)].clean.tobytes() for repeat in range(100)}
    assert len(seen) == 8
    plain = pairs_of([sample], augment=False)
    assert {plain[Draw(0, 0, r, 8)].clean.tobytes() for r in range(20)} == {image.tobytes()}


def test_crops_reach_every_place(array_source):
    rows = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 10, 3)).copy()
    sample = Sample("a/0", array_source("d", rows), array_source("c", rows), "a", "0")
    pairs = pairs_of([sample], augment=False)
    tops = {int(pairs[Draw(0, 0, repeat, 8)].clean[0, 0, 0]) for repeat in range(60)}
    assert tops == {0, 1, 2}


@pytest.mark.parametrize("size", [(5, 40), (1, 1), (16, 15)])
def test_small_pictures_are_completed_by_mirroring(size, make_samples):
    samples = make_samples(scenes=1, size=size)
    pair = pairs_of(samples)[Draw(0, 0, 0, 16)]
    assert pair.clean.shape == pair.degraded.shape == (16, 16, 3)
    np.testing.assert_array_equal(pair.degraded, pair.clean // 2)


def test_noise_is_fresh_in_every_draw_with_the_right_spread(make_samples, array_source):
    samples = make_samples(scenes=1, labels=("noise-25",), size=(64, 64), sigma=25.0)
    flat = array_source("c", np.full((64, 64, 3), 128, np.uint8))
    sample = Sample("noise-25/0", flat, flat, "noise-25", "0", noise_sigma=25.0)
    pairs = pairs_of([sample])
    one, two = pairs[Draw(0, 0, 0, 64)], pairs[Draw(0, 1, 0, 64)]
    assert not np.array_equal(one.degraded, two.degraded)
    np.testing.assert_array_equal(one.degraded, pairs[Draw(0, 0, 0, 64)].degraded)
    noise = one.degraded.astype(float) - one.clean
    assert noise.std() == pytest.approx(25, rel=0.05)
    assert len(samples) == 1


def test_aligned_crops_are_the_boxes_of_their_views(samples):
    pairs = pairs_of(samples, augment=False, aligned_crops=4)
    for repeat in range(6):
        draw = Draw(2, 1, repeat, 16)
        k = crop_number(0, samples[2].id, 1, repeat, 4)
        top, left, height, width = View("crop", 16, k).box(40, 56)
        expected = samples[2].clean.read_crop(top, left, height, width)
        np.testing.assert_array_equal(pairs[draw].clean, expected)


def test_pictures_of_two_sizes_are_refused(array_source):
    small, large = np.zeros((20, 20, 3), np.uint8), np.zeros((24, 20, 3), np.uint8)
    sample = Sample("a/0", array_source("bad.png", small), array_source("c.png", large), "a", "0")
    with pytest.raises(DataError, match="differ in size") as caught:
        pairs_of([sample])[Draw(0, 0, 0, 16)]
    assert "bad.png" in str(caught.value)


def test_a_sample_without_ground_truth_is_refused(array_source):
    sample = Sample("a/0", array_source("d", np.zeros((20, 20, 3), np.uint8)), None, "a", "0")
    with pytest.raises(DataError, match="no ground truth"):
        pairs_of([sample])[Draw(0, 0, 0, 16)]


def test_collated_pairs_are_channels_last_in_memory(samples):
    pairs = pairs_of(samples)
    batch = [pairs[Draw(i, 0, 0, 16)] for i in range(3)]
    degraded, clean = collate_pairs(batch)
    assert degraded.shape == (3, 3, 16, 16)
    assert degraded.dtype == torch.uint8
    assert clean.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(clean[1].permute(1, 2, 0).numpy(), batch[1].clean)
