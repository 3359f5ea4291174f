"""Small sets stay in memory; large ones stay on the disk."""

import numpy as np

from mmfe_restore.data import dataset, hold_in_memory


def test_held_pictures_are_decoded_once_and_equal(samples, monkeypatch):
    held = hold_in_memory(samples)
    assert held is not None
    for before, after in zip(samples, held, strict=True):
        np.testing.assert_array_equal(after.degraded.read(), before.degraded.read())
        np.testing.assert_array_equal(
            after.clean.read_crop(3, 5, 10, 12), before.clean.read_crop(3, 5, 10, 12)
        )
        assert after.clean.read() is after.clean.read()
        assert after.degraded.size() == before.degraded.size()


def test_samples_of_a_scene_share_their_ground_truth(samples):
    held = hold_in_memory(samples)
    assert held is not None
    assert len({id(s.clean) for s in held}) == 5


def test_a_set_that_does_not_fit_is_not_held(samples, monkeypatch):
    # 5 clean and 10 degraded pictures of 40 x 56 x 3 bytes.
    need = 15 * 40 * 56 * 3
    monkeypatch.setattr(dataset, "free_memory", lambda: int(need / dataset.SHARE))
    assert hold_in_memory(samples) is not None
    monkeypatch.setattr(dataset, "free_memory", lambda: int(need / dataset.SHARE) - 8)
    assert hold_in_memory(samples) is None


def test_processes_of_one_machine_hold_no_more_than_one_may(samples, monkeypatch):
    need = 15 * 40 * 56 * 3
    monkeypatch.setattr(dataset, "free_memory", lambda: int(8 * need / dataset.SHARE))
    assert hold_in_memory(samples, processes=8) is not None
    assert hold_in_memory(samples, processes=9) is None


def test_noisy_samples_need_their_clean_picture_only(make_samples):
    noisy = make_samples(scenes=2, labels=("noise-15", "noise-50"), sigma=15.0)
    assert dataset.decoded_bytes(noisy, 10**9) == 2 * 40 * 56 * 3
