"""The XMP of a restored picture claims nothing that its file does not hold."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.images import encode_photograph, read_photograph
from mmfe_cache.images.xmp import beyond_xmp, upright_xmp

FILM = ("it holds a film behind its picture, which is not kept",)
NOISE = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)


def packet(attributes: str = "", elements: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf'
        f'-syntax-ns#"><rdf:Description xmp:Rating="4" {attributes}>{elements}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize(("attributes", "elements", "after"), [
    ('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"', "",
     ('GCamera:MotionPhoto="0" GCamera:MotionPhotoVersion="1"', "")),
    ("Camera:MotionPhoto='1'", "", ("Camera:MotionPhoto='0'", "")),
    ('GCamera:MicroVideo = "1" GCamera:MicroVideoOffset="4000"', "",
     ('GCamera:MicroVideo = "0" GCamera:MicroVideoOffset="0"', "")),
    ("", "<GCamera:MotionPhoto>1</GCamera:MotionPhoto>",
     ("", "<GCamera:MotionPhoto>0</GCamera:MotionPhoto>")),
    ("", '<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Semantic="MotionPhoto" '
     'Item:Length="4000"/></rdf:li></rdf:Seq></Container:Directory>', ("", "")),
])  # fmt: skip
def test_a_film_is_told_and_no_longer_claimed(
    attributes: str, elements: str, after: tuple[str, str]
) -> None:
    before = packet(attributes, elements)
    assert beyond_xmp(before) == FILM
    assert upright_xmp(before, turned=False) == packet(*after)
    assert beyond_xmp(packet(*after)) == ()


def test_thumbnails_go() -> None:
    one = '<rdf:Alt><rdf:li xapGImg:format="JPEG"><xapGImg:image>/9j/4A</xapGImg:image></rdf:li>'
    for name in ("xmp", "xap"):
        whole = f"<{name}:Thumbnails>{one}</rdf:Alt></{name}:Thumbnails>"
        found = packet("", f"<a:b>1</a:b>{whole}<c:d>2</c:d>{whole}<{name}:Thumbnails/>")
        assert upright_xmp(found, turned=False) == packet("", "<a:b>1</a:b><c:d>2</c:d>")
    endless = packet("", f"<xmp:Thumbnails>{one}")
    assert upright_xmp(endless, turned=False) == endless


@pytest.mark.parametrize(("across", "down"), [
    ("exif:PixelXDimension", "exif:PixelYDimension"), ("tiff:ImageWidth", "tiff:ImageLength"),
])  # fmt: skip
def test_sizes_are_exchanged_as_in_exif(across: str, down: str) -> None:
    for attributes, elements, after in (
        (f'{across}="24" {down}="16"', "", (f'{across}="16" {down}="24"', "")),
        ("", f"<{down}>16</{down}><{across}>24</{across}>",
         ("", f"<{down}>24</{down}><{across}>16</{across}>")),
        (f'{across}="24"', "", (f'{across}="24"', "")),
    ):  # fmt: skip
        before = packet(attributes, elements)
        assert upright_xmp(before, turned=True) == packet(*after)
        assert upright_xmp(before, turned=False) == before


def test_a_continued_packet_is_told() -> None:
    guid = "0123456789ABCDEF" * 2
    before = packet(f'xmpNote:HasExtendedXMP="{guid}"')
    assert beyond_xmp(before) == ("its XMP goes on in further segments, which are not kept",)
    assert upright_xmp(before, turned=False) == packet("")
    element = packet("", f"<xmpNote:HasExtendedXMP>{guid}</xmpNote:HasExtendedXMP>")
    assert upright_xmp(element, turned=False) == packet("")


def test_a_motion_photo_from_end_to_end(tmp_path: Path) -> None:
    """A JPEG with an MP4 behind its end, turned by a quarter."""
    xmp = packet(
        'GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="4000" tiff:Orientation="6" '
        'exif:PixelXDimension="24" exif:PixelYDimension="16"',
        "<xmp:Thumbnails>/9j/4A</xmp:Thumbnails>",
    )
    block, buffer = Image.Exif(), io.BytesIO()
    block[0x0112] = 6
    Image.fromarray(NOISE).save(buffer, "JPEG", xmp=xmp, exif=block)
    film = struct.pack(">I8s", 4000, b"ftypmp42") + bytes(3988)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue() + film)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.notes == FILM
    content, _ = encode_photograph(photograph, photograph.srgb, "jpeg")
    assert b"ftypmp42" not in content
    with Image.open(io.BytesIO(content)) as found:
        assert found.size == (16, 24)
        assert found.info["xmp"] == packet(
            'GCamera:MotionPhoto="0" GCamera:MicroVideoOffset="0" tiff:Orientation="1" '
            'exif:PixelXDimension="16" exif:PixelYDimension="24"'
        )


def test_a_hostile_packet_costs_no_minutes() -> None:
    started = time.perf_counter()
    for one in (b" ", b"<xmp:Thumbnails ", b"<xmp:Thumbnails>", b'xmpNote:HasExtendedXMP="',
                b"tiff:Orientation ", b"GCamera:MotionPhoto= "):  # fmt: skip
        many = one * (2_000_000 // len(one))
        upright_xmp(many, turned=True)
        beyond_xmp(many)
    assert time.perf_counter() - started < 20
