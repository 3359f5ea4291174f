"""A broken or overlong block beside the pixels costs itself alone, and that is said."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmfe_cache.errors import PictureWarning
from mmfe_cache.images import read_photograph, read_rgb8, read_size
from mmfe_cache.images.colour_tags import make_profile

WIDE = make_profile((0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), 1.8) or b""
XMP = b"<x:xmpmeta>c</x:xmpmeta>"
IMAGE = np.zeros((4, 6, 3), np.uint8)
IMAGE[:2], IMAGE[2:] = (20, 200, 60), (200, 60, 20)


def exif() -> bytes:
    block = Image.Exif()
    block[0x0112], block[0x010E] = 6, "A hill"
    return block.tobytes()


def chunk(name: bytes, content: bytes, *, broken: bool = False) -> bytes:
    crc = zlib.crc32(name + content) ^ broken
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def profile_of(length: int) -> bytes:
    """The chunk of a profile that is as long as one with large tables."""
    long = WIDE + bytes(length - len(WIDE))
    return chunk(b"iCCP", b"p\0\0" + zlib.compress(struct.pack(">I", length) + long[4:]))


TEXT = chunk(b"tEXt", b"Copyright\0me")
KEPT = ((b"tEXt", b"Copyright\0me"),)
PACKET = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)


def write_png(path: Path, *chunks: bytes) -> Path:
    Image.fromarray(IMAGE).save(path)
    content = path.read_bytes()
    block = chunk(b"eXIf", exif().removeprefix(b"Exif\0\0"))
    path.write_bytes(content[:33] + b"".join(chunks) + block + content[33:])
    return path


def lost(*words: str) -> tuple[str, ...]:
    return (f"its {', '.join(words)} could not be read: it comes back without",)


def test_a_long_profile_is_read_like_a_short_one(tmp_path: Path) -> None:
    short = read_photograph(write_png(tmp_path / "a.png", profile_of(len(WIDE))))
    for length in (1_100_000, 9_000_000):
        path = write_png(tmp_path / "b.png", profile_of(length), TEXT, PACKET)
        long = read_photograph(path)
        assert long.srgb.shape == (6, 4, 3) and read_size(path) == (6, 4)
        assert np.array_equal(long.srgb, short.srgb) and not np.array_equal(
            long.srgb, np.rot90(IMAGE, -1)
        )
        assert np.array_equal(read_rgb8(path), short.srgb)
        assert long.profile is not None and len(long.profile) == length
        assert long.exif == short.exif is not None and long.xmp == XMP and long.notes == ()


def test_a_profile_beyond_the_limit_costs_itself_alone(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", profile_of(17 << 20), TEXT, PACKET)
    found = read_photograph(path)
    assert np.array_equal(found.srgb, np.rot90(IMAGE, -1))  # its numbers, as those of sRGB
    assert found.exif and found.xmp == XMP and found.captions.texts == KEPT
    assert found.profile is None and found.notes == lost("colour profile")
    with pytest.warns(PictureWarning, match="its colour profile could not be read"):
        assert np.array_equal(read_rgb8(path), np.rot90(IMAGE, -1))


@pytest.mark.parametrize(("extra", "word"), [
    (chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(17 << 20))), 'text "parameters"'),
    (chunk(b"tIME", bytes(7), broken=True), "chunk tIME"),
    (chunk(b"tEXt", b"Title\0x", broken=True), 'text "Title"'),
    (chunk(b"pHYs", b"\0"), "resolution"),
    (chunk(b"zTXt", b"Software\0\7"), 'text "Software"'),
    (chunk(b"fcTL", bytes(26)) + chunk(b"fcTL", bytes(26)), "frames"),
])  # fmt: skip
def test_a_broken_chunk_costs_itself_alone(tmp_path: Path, extra: bytes, word: str) -> None:
    whole = read_photograph(write_png(tmp_path / "a.png", profile_of(len(WIDE)), TEXT, PACKET))
    path = write_png(tmp_path / "b.png", profile_of(len(WIDE)), TEXT, extra, PACKET)
    found = read_photograph(path)
    assert found.captions == whole.captions and found.captions.texts == KEPT
    assert (found.xmp, found.exif, found.profile) == (XMP, whole.exif, WIDE)
    assert np.array_equal(found.srgb, whole.srgb)
    assert found.notes == lost(word)
    with warnings.catch_warnings():  # nothing that a data set's pictures are shown by
        warnings.simplefilter("error")
        assert np.array_equal(read_rgb8(path), whole.srgb)


def test_a_text_of_some_megabytes_is_kept(tmp_path: Path) -> None:
    long = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * (3 << 20)))
    found = read_photograph(write_png(tmp_path / "a.png", long, PACKET))
    ((_, text),) = found.captions.texts
    assert len(zlib.decompress(text.removeprefix(b"parameters\0\0"))) == 3 << 20
    assert found.notes == ()


def test_texts_together_are_held_to_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 8192)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 3 * 8192)
    texts = [chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(b"x" * 8000)) for i in range(5)]
    found = read_photograph(write_png(tmp_path / "a.png", *texts))
    assert [text[:1] for _, text in found.captions.texts] == [b"0", b"1", b"2"]
    assert found.notes == lost('text "3"', 'text "4"') and found.exif


def test_broken_code_points_count_as_none(tmp_path: Path) -> None:
    linear = bytes([1, 8, 0, 1])
    write_png(tmp_path / "a.png", chunk(b"cICP", linear))
    assert not np.array_equal(read_rgb8(tmp_path / "a.png"), np.rot90(IMAGE, -1))
    write_png(tmp_path / "b.png", chunk(b"cICP", linear, broken=True))
    found = read_photograph(tmp_path / "b.png")
    assert np.array_equal(found.srgb, np.rot90(IMAGE, -1)) and found.notes == lost("colour tags")


@pytest.mark.parametrize(("marker", "payload", "word"), [
    (0xE0, b"JFIF\0", "resolution"),  # cut before its version
    (0xED, b"Photoshop 3.0\x008BIM\4\4", "IPTC"),  # cut before its length
])  # fmt: skip
def test_a_broken_segment_of_a_jpeg_costs_itself_alone(
    tmp_path: Path, marker: int, payload: bytes, word: str
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(
        buffer, "JPEG", quality=100, icc_profile=WIDE, exif=exif(), xmp=XMP, comment=b"by hand"
    )
    content = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(content)
    whole = read_photograph(tmp_path / "a.jpg")
    segment = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
    (tmp_path / "b.jpg").write_bytes(content[:2] + segment + content[2:])
    found = read_photograph(tmp_path / "b.jpg")
    assert np.array_equal(found.srgb, whole.srgb) and found.srgb.shape == (6, 4, 3)
    assert (found.profile, found.exif, found.xmp) == (WIDE, whole.exif, XMP)
    assert found.captions.comments == (b"by hand",) and found.notes == lost(word)
