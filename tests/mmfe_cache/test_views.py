"""Views: names that round-trip, pixels that are what they claim to be."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmfe_cache.errors import UsageError
from mmfe_cache.views import View, mirror_to

NAMES = {
    "whole@128": "whole-128",
    "crop@64": "crop-64",
    "crop@128#3": "crop-128-3",
    "native": "native",
}


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "group"), NAMES.items())
def test_names_round_trip_and_give_file_safe_groups(name, group):
    view = View.parse(name)
    assert view.name == name
    assert view.group == group
    assert View.parse(f"  {name} ") == view


@pytest.mark.parametrize(
    "name",
    [
        "",
        "whole",
        "whole@",
        "whole@0",
        "whole@-4",
        "whole@128#1",
        "crop@128#",
        "crop@1e3",
        "foo@12",
        "crop@99999",
        "crop@64#99999",
        "native@2",
        "whole@128,crop@64",
    ],
)
def test_nonsense_is_a_usage_error_that_says_what_is_expected(name):
    with pytest.raises(UsageError) as caught:
        View.parse(name)
    assert caught.value.expected


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([1, 7, 32, 64]), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_every_view_of_every_size_has_its_own_size(height, width, side, index):
    image = picture(height, width)
    for view in (View("whole", side), View("crop", side), View("crop", side, index)):
        seen = view.render(image)
        assert seen.shape == (side, side, 3)
        assert seen.dtype == np.uint8
    assert View("native").render(image) is image


@given(st.integers(32, 90), st.integers(32, 90), st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_crop_is_exactly_its_box_of_the_image(height, width, index):
    image = picture(height, width)
    view = View("crop", 32, index)
    top, left, rows, columns = view.box(height, width)
    assert 0 <= top <= height - rows
    assert 0 <= left <= width - columns
    np.testing.assert_array_equal(
        view.render(image), image[top : top + rows, left : left + columns]
    )


def test_the_unnumbered_crop_is_the_centre_and_numbered_ones_differ():
    image = picture(200, 300)
    centre = View.parse("crop@64").render(image)
    np.testing.assert_array_equal(centre, image[68:132, 118:182])
    boxes = {View("crop", 64, index).box(200, 300) for index in range(50)}
    assert len(boxes) == 50


def test_numbered_crops_cover_the_image_evenly():
    tops = np.array([View("crop", 100, k).box(1100, 1100)[:2] for k in range(64)]) / 1000
    counts, _, _ = np.histogram2d(tops[:, 0], tops[:, 1], bins=4, range=[[0, 1], [0, 1]])
    assert counts.min() >= 2
    assert counts.max() <= 6


def test_whole_is_antialiased():
    # A pattern finer than the target must become grey, not alias to black and white.
    board = np.zeros((256, 256, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    small = View("whole", 64).render(board)
    assert np.abs(small.astype(int) - 127).max() < 12


def test_whole_at_its_own_size_changes_nothing():
    image = picture(64, 64)
    np.testing.assert_array_equal(View("whole", 64).render(image), image)


def test_mirroring_continues_the_picture_and_keeps_it_inside():
    image = picture(3, 5)
    big = mirror_to(image, 20, 21)
    assert big.shape == (20, 21, 3)
    top, left = (20 - 3) // 2, (21 - 5) // 2
    np.testing.assert_array_equal(big[top : top + 3, left : left + 5], image)
    np.testing.assert_array_equal(big[top - 1, left : left + 5], image[0])
    assert mirror_to(image[:1, :1], 4, 4).reshape(-1, 3).std(axis=0).max() == 0
