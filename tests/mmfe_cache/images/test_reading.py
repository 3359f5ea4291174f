import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.errors import DataError
from mmfe_cache.images import (
    FileSource,
    crop,
    pixel_digest,
    read_rgb8,
    read_size,
    write_png,
)
from mmfe_cache.samples import PixelSource


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (23, 31, 3)).astype(np.uint8)


def test_png_round_trip_and_source(tmp_path, picture):
    path = tmp_path / "with space ä.png"
    write_png(path, picture)
    source = FileSource(path)
    assert isinstance(source, PixelSource)
    assert np.array_equal(source.read(), picture)
    assert source.size() == (23, 31)
    assert np.array_equal(source.read_crop(2, 3, 10, 20), picture[2:12, 3:23])
    assert pickle.loads(pickle.dumps(source)) == source
    assert list(tmp_path.iterdir()) == [path], "something was left beside the picture"


def test_grey_palette_alpha_and_cmyk_become_rgb(tmp_path, picture):
    grey = Image.fromarray(picture[:, :, 0])
    grey.save(tmp_path / "grey.png")
    read = read_rgb8(tmp_path / "grey.png")
    assert np.array_equal(read, np.repeat(picture[:, :, :1], 3, 2))

    flat = np.zeros((8, 8, 3), np.uint8) + np.array([10, 200, 30], np.uint8)
    Image.fromarray(flat).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert np.array_equal(read_rgb8(tmp_path / "p.png"), flat)

    alpha = np.dstack([flat, np.full((8, 8), 128, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "a.png")
    over_white = flat * (128 / 255) + 255 * (127 / 255)
    assert np.abs(read_rgb8(tmp_path / "a.png") - over_white).max() <= 1

    Image.fromarray(flat).convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    assert np.abs(read_rgb8(tmp_path / "c.jpg").astype(int) - flat).max() <= 4

    Image.fromarray(flat).convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(read_rgb8(tmp_path / "bits.png"))) <= {0, 255}


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_rgb8(tmp_path / "deep.png")[:, :, 0].tolist() == [[0, 0, 1], [128, 254, 255]]


def test_transparent_palette_is_laid_on_white(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0] + [0, 0, 0] * 255)
    image.save(tmp_path / "t.png", transparency=0)
    assert (read_rgb8(tmp_path / "t.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, orientation):
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:4, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "o.png", exif=exif)
    read = read_rgb8(tmp_path / "o.png")
    assert read.shape[:2] == ((8, 16) if orientation < 5 else (16, 8))
    assert read_size(tmp_path / "o.png") == read.shape[:2]
    corners = [(0, 0), (0, 1), (1, 1), (1, 0)]
    row, column = corners[(orientation - 1) % 4]
    height, width = read.shape[:2]
    assert read[row * (height - 1), column * (width - 1), 0] == 255
    assert (read == 255).mean() == pytest.approx(0.25)


def test_bad_files_are_named(tmp_path, picture):
    write_png(tmp_path / "whole.png", picture)
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(picture).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    names = ["cut.png", "cut.jpg", "empty.png", "text.png", "folder.png", "loop.png", "gone.png"]
    for name in names:
        with pytest.raises(DataError, match=name) as whole:
            read_rgb8(tmp_path / name)
        assert str(whole.value).count(str(tmp_path)) == 1  # no system message that repeats it
        if not name.startswith("cut"):
            with pytest.raises(DataError) as size:
                read_size(tmp_path / name)
            assert str(size.value) == str(whole.value)


def test_a_corrupt_chunk_is_not_an_image(tmp_path, picture):
    write_png(tmp_path / "a.png", picture)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_rgb8(tmp_path / "a.png")


# pytest sets aside the filter of `mmfe_cache.images`.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_forged_sizes_are_refused(tmp_path):
    Image.new("1", (4, 4)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    for width, height in ((1 << 15, 1 << 14), (17_000, 10_001)):
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "huge.png").write_bytes(content)
        for read in (read_rgb8, read_size):
            with pytest.raises(DataError, match="too large"):
                read(tmp_path / "huge.png")


def test_digest_sees_shape_and_pixels(picture):
    assert pixel_digest(picture) == pixel_digest(picture.copy())
    assert len(pixel_digest(picture)) == 32
    assert pixel_digest(picture) != pixel_digest(picture.reshape(31, 23, 3))
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_digest(picture) != pixel_digest(changed)
    assert pixel_digest(picture[:, ::-1]) == pixel_digest(picture[:, ::-1].copy())


def test_crops_must_lie_inside(picture):
    for window in ((-1, 0, 2, 2), (0, 0, 24, 2), (0, 30, 2, 2)):
        with pytest.raises(DataError, match="does not lie inside"):
            crop(picture, *window)
