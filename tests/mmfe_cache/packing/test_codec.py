import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings, strategies as st

from mmfe_cache.images import read_rgb8
from mmfe_cache.packing.codec import TILE, add_green, deflate_tiles, inflate_rows, split_tiles
from mmfe_cache.seeds import generator


def tile_of(kind, seed=0):
    random = generator("codec", kind, seed)
    if kind == "noise":
        return random.integers(0, 256, (TILE, TILE, 3)).astype(np.uint8)
    if kind == "extremes":
        return (random.integers(0, 2, (TILE, TILE, 3)) * 255).astype(np.uint8)
    slope = np.add.outer(np.arange(TILE) * 1.7, np.arange(TILE) * 0.9)[..., None]
    grain = random.normal(0, 3, (TILE, TILE, 1))
    return np.clip(slope + grain + [10, 30, 0], 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["noise", "extremes", "photograph"]),
    seed=st.integers(0, 99),
    rows=st.integers(1, TILE),
)
def test_the_first_rows_of_any_tile_come_back(kind, seed, rows):
    tile = tile_of(kind, seed)
    (blob,) = deflate_tiles(tile[None])
    back = inflate_rows(memoryview(blob), rows)
    add_green(back)
    assert np.array_equal(back, tile[:rows])


def test_tiles_are_not_changed_and_come_one_by_one():
    tiles = np.stack([tile_of("noise", seed) for seed in range(3)])
    before = tiles.copy()
    blobs = deflate_tiles(tiles)
    assert np.array_equal(tiles, before)
    assert blobs == [deflate_tiles(tile[None])[0] for tile in tiles]


def test_photographs_take_less_than_their_pixels_deflated():
    plain = packed = 0
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        tiles = split_tiles(read_rgb8(Path(skimage.data.__file__).parent / name))
        deflated = [len(zlib.compress(tile.tobytes(), 6)) for tile in tiles]
        blobs = [len(blob) for blob in deflate_tiles(tiles)]
        assert sum(blobs) < sum(deflated), name
        plain, packed = plain + sum(deflated), packed + sum(blobs)
    assert packed < 0.85 * plain


@pytest.mark.parametrize("rows", [1, 17, TILE])
def test_a_damaged_stream_is_a_value_error(rows):
    (blob,) = deflate_tiles(tile_of("noise")[None])
    with pytest.raises(ValueError, match=r"instead of|incomplete"):
        inflate_rows(blob[:60], rows)
    with pytest.raises(ValueError, match=r"incorrect header|invalid"):
        inflate_rows(b"\0" + blob, rows)
