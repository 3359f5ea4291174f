"""The demo's photographs: real files, and no scene in two parts."""

from __future__ import annotations

import numpy as np
import pytest

from mmfe_cache.datasets.demo_photographs import bundled_photographs, split_into_parts
from mmfe_cache.datasets.photographs import scene_of
from mmfe_cache.errors import DataError
from mmfe_cache.images import read_rgb8, write_png


def scenes(part):
    return {scene_of(photograph.name) for photograph in part}


def test_bundled_photographs_can_be_read_and_share_no_scene():
    found = bundled_photographs()
    for photograph in (*found.train, *found.test, *found.own):
        assert min(read_rgb8(photograph.path).shape[:2]) >= 256
    assert not scenes(found.train) & scenes(found.test)
    assert not scenes(found.own) & (scenes(found.train) | scenes(found.test))


def photographs(folder, names):
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(folder / name, rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return folder


def test_both_halves_of_a_stereo_pair_stay_together(tmp_path):
    names = ["a.png", "b.png", "moto_left.png", "moto_right.png", "x.png"]
    parts = split_into_parts(photographs(tmp_path, names))
    assert not scenes(parts.train) & scenes(parts.test)
    assert not scenes(parts.own) & (scenes(parts.train) | scenes(parts.test))
    assert len(parts.own) == 1


def test_photographs_of_one_name_in_two_folders_keep_two_names(tmp_path):
    parts = split_into_parts(photographs(tmp_path, ["1/a.png", "2/a.png", "b.png", "c.png"]))
    everyone = (*parts.train, *parts.test, *parts.own)
    assert len({photograph.name for photograph in everyone}) == 4


def test_two_scenes_are_too_few(tmp_path):
    with pytest.raises(DataError, match="enough photographs"):
        split_into_parts(photographs(tmp_path, ["a_left.png", "a_right.png", "b.png"]))
