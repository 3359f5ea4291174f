"""What a photograph had, its restoration has: the network here is the identity."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.errors import UsageError
from mmfe_cache.images import encode_photograph, read_photograph, read_rgb8
from mmfe_cache.images.colour_tags import coded_bits, make_grey_profile, make_profile
from mmfe_cache.images.decoding import Stored
from mmfe_cache.images.metadata import Captions
from mmfe_cache.images.reading import Photograph
from mmfe_restore import Restorer
from mmfe_restore.inference import RestoreReport, restore_files, restore_image
from mmfe_restore.inference.image import fill_transparent
from mmfe_restore.recipes.schema import ModelConfig

D65 = (0.3127, 0.3290)
P3 = make_profile((*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060), None)
ADOBE = make_profile((*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 563 / 256)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf'
    b'-syntax-ns#"><rdf:Description tiff:Orientation="6" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
)
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (16, 24, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (16, 24, 3)).astype(np.uint16)
LOSSLESS = {"webp": {"lossless": True, "exact": True}}


@pytest.fixture(scope="module")
def identity() -> Restorer:
    off = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    config = ModelConfig(width=8, num_blocks=(1, 1, 1, 1), identity_start=True, **off)
    return Restorer(config).eval()


def restored(identity: Restorer, path: Path, **options: str) -> Path:
    report = restore_files([path], path.parent / "out", identity, None, **options)
    assert not report.failed, report.failed
    return report.restored[0].target


def exif(orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "A camera"
    block.get_ifd(0x8769)[0x829A] = 0.01
    block.get_ifd(0x8825)[1] = "N"
    return block


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("profile", [P3, ADOBE], ids=["p3", "adobe"])
def test_wide_colours_come_back_to_the_bit(
    identity: Restorer, tmp_path: Path, suffix: str, profile: bytes
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(NOISE).save(path, icc_profile=profile, **LOSSLESS.get(suffix, {}))
    with Image.open(restored(identity, path)) as found:
        assert found.info["icc_profile"] == profile
        assert np.array_equal(np.asarray(found), NOISE)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", {"quality": 95, "subsampling": 0}),
        ("avif", {"quality": 95, "subsampling": "4:4:4"}),
        ("webp", {"quality": 95, "exact": True}),
    ],
)
@pytest.mark.parametrize("profile", [P3, ADOBE], ids=["p3", "adobe"])
def test_wide_colours_of_lossy_files_lose_what_their_codec_takes(
    identity: Restorer, tmp_path: Path, suffix: str, options: dict[str, object], profile: bytes
) -> None:
    path, again = tmp_path / f"a.{suffix}", tmp_path / f"again.{suffix}"
    rows, columns = np.mgrid[0:64, 0:96]
    ramps = np.stack([4 * rows, 255 - 2.6 * columns, 2 * rows + columns], axis=-1)
    Image.fromarray(ramps.clip(0, 255).astype(np.uint8)).save(path, icc_profile=profile, **options)
    with Image.open(path) as given:  # the same codec, and nothing else
        Image.fromarray(np.asarray(given)).save(again, **options)
    with Image.open(restored(identity, path)) as found, Image.open(again) as wanted:
        assert found.info["icc_profile"] == profile
        assert np.array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
def test_exif_and_xmp_survive_and_the_picture_stands_upright(
    identity: Restorer, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    flat = np.zeros((16, 24, 3), np.uint8) + 90
    flat[:4, :4] = 200
    options = {"xmp": XMP, "quality": 95} if suffix in ("webp", "avif", "jpg") else {}
    if suffix == "png":
        from PIL.PngImagePlugin import PngInfo

        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif suffix == "tif":
        from PIL.TiffImagePlugin import ImageFileDirectory_v2

        tags = ImageFileDirectory_v2()
        tags[0x0112], tags[0x010F], tags[700] = 6, "A camera", XMP
        tags[0x8769], tags[0x8825] = {0x829A: 0.01}, {1: "N"}
        Image.fromarray(flat).save(path, tiffinfo=tags)
    if suffix != "tif":
        Image.fromarray(flat).save(path, exif=exif(6), **LOSSLESS.get(suffix, {}), **options)
    target = restored(identity, path)
    with Image.open(target) as found:
        block = found.getexif()
        assert block.get(0x0112, 1) == 1
        assert block[0x010F] == "A camera"
        assert float(block.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
        assert block.get_ifd(0x8825)[1] == "N"
        xmp = found.info.get("xmp") or found.tag_v2[700]
        assert b'Rating="4"' in xmp and b'Orientation="1"' in xmp
        assert found.size == (16, 24)
    assert np.abs(read_rgb8(target).astype(int) - np.rot90(flat, -1)).max() <= 8


IPTC = b"\x1c\x02\x78\0\x0bA hill, wet" + b"\x1c\x02\x50\0\4Anna"
"""Records 2:120, the caption, and 2:80, the author (IIM 4.2)."""


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_iptc_survives(identity: Restorer, tmp_path: Path, suffix: str) -> None:
    from PIL import IptcImagePlugin
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    path = tmp_path / f"a.{suffix}"
    if suffix == "jpg":
        resource = b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0" * (len(IPTC) % 2)
        block = b"Photoshop 3.0\0" + resource
        segment = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block
        Image.fromarray(NOISE).save(path, extra=segment, comment=b"by hand")
    else:
        tags = ImageFileDirectory_v2()
        tags[33723], tags.tagtype[33723] = IPTC, 7
        Image.fromarray(NOISE).save(path, tiffinfo=tags)
    with Image.open(restored(identity, path)) as found:
        told = IptcImagePlugin.getiptcinfo(found)
        assert told == {(2, 120): b"A hill, wet", (2, 80): b"Anna"}
        assert suffix == "tif" or found.info["comment"] == b"by hand"
    report = restore_files([path], tmp_path / "other", identity, None, format="webp")
    lost = {"jpg": "IPTC, comment", "tif": "IPTC"}[suffix]
    assert report.restored[0].notes == (f"WEBP does not hold its {lost}",)


@pytest.mark.parametrize("deep", [False, True])
def test_texts_of_a_png_survive(identity: Restorer, tmp_path: Path, deep: bool) -> None:
    from PIL.PngImagePlugin import PngInfo

    path = tmp_path / "a.png"
    texts = {"Author": "Anna Müller", "parameters": "steps: 20", "Title": "雨"}
    told = PngInfo()
    for word, text in texts.items():
        told.add_text(word, text)
    if deep:
        chunks = tuple((name, content) for name, content, *_ in told.chunks)
        original = Photograph(Stored(DEEP, "rgb"), DEEP, "PNG", captions=Captions(texts=chunks))
        path.write_bytes(encode_photograph(original, DEEP, "png")[0])
    else:
        Image.fromarray(NOISE).save(path, pnginfo=told)
    with Image.open(restored(identity, path)) as found:
        assert found.text == texts
        assert deep or np.array_equal(np.asarray(found), NOISE)


def test_several_texts_of_one_keyword_and_several_comments_survive(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    told = PngInfo()
    told.add_text("Comment", "first")
    told.add_text("Comment", "second", zip=True)
    told.add_itxt("Title", "Hügel", "de", "Titel")
    Image.fromarray(NOISE).save(tmp_path / "a.png", pnginfo=told)
    content = encode_photograph(read_photograph(tmp_path / "a.png"), NOISE, "png")[0]
    for name, text, *_ in told.chunks:
        assert content.count(name + text) == 1
    comments = b"".join(b"\xff\xfe" + struct.pack(">H", 2 + len(c)) + c for c in (b"one", b"two"))
    Image.fromarray(NOISE).save(tmp_path / "a.jpg", extra=comments)
    content = encode_photograph(read_photograph(tmp_path / "a.jpg"), NOISE, "jpeg")[0]
    assert content.count(comments) == 1 and content.count(b"\xff\xfe") == 2


@pytest.mark.parametrize("twice", [False, True])
def test_what_imagemagick_writes_into_texts_survives_where_it_is_the_only_copy(
    identity: Restorer, tmp_path: Path, twice: bool
) -> None:
    from PIL.PngImagePlugin import PngInfo

    block, path, told = exif(6).tobytes(), tmp_path / "a.png", PngInfo()
    word = "Raw profile type exif"
    told.add_text(word, f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    Image.fromarray(NOISE).save(path, pnginfo=told, **({"exif": block} if twice else {}))
    with Image.open(restored(identity, path)) as found, Image.open(path) as given:
        assert found.getexif()[0x010F] == "A camera"
        # A second copy would say that the picture is still to be turned.
        assert found.text.get(word) == (None if twice else given.text[word])
        assert found.getexif()[0x0112] == (1 if twice else 6)
        assert found.size == ((16, 24) if twice else (24, 16))


@pytest.mark.parametrize(("source", "name"), [("jpg", "jpeg"), ("jpg", "tiff"), ("tif", "tiff")])
def test_what_windows_says_of_a_picture_survives(tmp_path: Path, source: str, name: str) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    title, path = "Hügel".encode("utf-16le") + b"\0\0", tmp_path / f"a.{source}"
    if source == "jpg":
        block = exif()
        block[0x9C9B], block[0x4746] = title, 4
        Image.fromarray(NOISE).save(path, exif=block)
    else:
        tags = ImageFileDirectory_v2()
        tags[0x9C9B], tags.tagtype[0x9C9B], tags[0x4746] = title, 1, 4
        Image.fromarray(NOISE).save(path, tiffinfo=tags)
    (tmp_path / "b").write_bytes(encode_photograph(read_photograph(path), NOISE, name)[0])
    with Image.open(tmp_path / "b") as found:
        block = found.getexif()
        assert (block[0x9C9B], block[0x4746]) == (title, 4)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_in_and_out(
    identity: Restorer, tmp_path: Path, suffix: str, channels: int
) -> None:
    values = DEEP[:, :, :channels]
    suffix = "ppm" if suffix == "pgm" and channels == 3 else suffix
    path = tmp_path / f"a.{suffix}"
    original = Photograph(Stored(values, "grey" if channels == 1 else "rgb"), DEEP, "PNG",
                          exif=None)  # fmt: skip
    name = {"png": "png", "tif": "tiff"}.get(suffix, "pnm")
    path.write_bytes(
        encode_photograph(original, np.repeat(values, 4 - channels, 2)[:, :, :3], name)[0]
    )
    found = read_photograph(restored(identity, path)).stored
    assert found.space == ("grey" if channels == 1 else "rgb")
    assert np.array_equal(found.values, values)


@pytest.mark.parametrize("deep", [False, True])
def test_a_pixmaps_name_says_what_it_holds(identity: Restorer, tmp_path: Path, deep: bool) -> None:
    """P5 is grey and called .pgm, P6 has colours and is called .ppm; .pnm is either."""
    values = DEEP if deep else NOISE
    original = {"c": Stored(values, "rgb"), "g": Stored(values[:, :, :1], "grey")}
    for word, stored in original.items():
        photograph = Photograph(stored, np.repeat(stored.values, 3, 2)[:, :, :3], "PNG")
        content = encode_photograph(photograph, photograph.srgb, "png")[0]
        (tmp_path / f"{word}.png").write_bytes(content)
    for word, name, magic in (
        ("g", "g.pgm", b"P5"), ("g", "g.pnm", b"P5"), ("g", "g.ppm", b"P6"),
        ("c", "c.ppm", b"P6"), ("c", "c.pnm", b"P6"), ("c", "c.pgm", None),
    ):  # fmt: skip
        report = restore_files([tmp_path / f"{word}.png"], tmp_path / name, identity, None)
        if magic is None:
            assert ".ppm" in str(report.failed[0][1]) and not (tmp_path / name).exists()
            continue
        assert (tmp_path / name).read_bytes().startswith(magic)
        seen = read_photograph(tmp_path / name).srgb
        assert np.array_equal(seen, read_photograph(tmp_path / f"{word}.png").srgb)
        assert bool(report.restored[0].notes) == (name == "g.ppm")
    with pytest.raises(UsageError, match=r"\.pbm"):
        restore_files([tmp_path / "g.png"], tmp_path / "g.pbm", identity, None)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_our_deep_files_are_read_by_others(tmp_path: Path, suffix: str) -> None:
    """tifffile reads the TIFF; zlib and a sum of rows read the PNG."""
    import zlib

    import tifffile

    alpha = DEEP[:, :, 0]
    original = Photograph(
        Stored(DEEP, "rgb", alpha), DEEP, "TIFF", P3, b"Exif\0\0", XMP, (300, 300)
    )
    content, _ = encode_photograph(original, DEEP, {"png": "png", "tif": "tiff"}[suffix])
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    if suffix == "tif":
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            packed = page.dataoffsets[0], page.databytecounts[0]
            raw = zlib.decompress(content[packed[0] : packed[0] + packed[1]])
            assert page.tags[34675].value == P3 and page.tags[700].value == XMP
            assert page.tags[338].value in ((2,), 2)
        found = np.cumsum(np.frombuffer(raw, "<u2").reshape(16, 24, 4), axis=1, dtype=np.uint16)
    else:
        at = content.index(b"IDAT")
        size = struct.unpack(">I", content[at - 4 : at])[0]
        rows = np.frombuffer(zlib.decompress(content[at + 4 : at + 4 + size]), np.uint8)
        rows = np.cumsum(rows.reshape(16, -1)[:, 1:], axis=0, dtype=np.uint8)
        found = rows.view(">u2").reshape(16, 24, 4)
    assert np.array_equal(found, np.dstack([DEEP, alpha]))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_passes_through(identity: Restorer, tmp_path: Path, suffix: str) -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[4:12, 4:20], alpha[5, 5] = 255, 100
    four = np.dstack([NOISE, alpha])
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(four).save(path, **LOSSLESS.get(suffix, {}))
    with Image.open(restored(identity, path)) as found:
        assert np.array_equal(np.asarray(found), four)


def test_colours_under_transparency_do_not_bleed(identity: Restorer) -> None:
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:, 16:] = 255
    shown = np.full((32, 32, 3), 200, np.uint8)
    hidden = shown.copy()
    hidden[:, :16] = 0
    assert np.array_equal(fill_transparent(hidden, alpha), shown)
    torn = Restorer(identity.config).eval()
    import torch

    torch.nn.init.normal_(torn.output.weight, std=0.05)
    clean = restore_image(torn, shown)
    assert np.array_equal(restore_image(torn, fill_transparent(hidden, alpha)), clean)
    assert not np.array_equal(restore_image(torn, hidden)[:, 16:], clean[:, 16:])


def test_grey_stays_grey(identity: Restorer, tmp_path: Path) -> None:
    for mode, name in (("L", "a.jpg"), ("L", "a.png"), ("LA", "b.png"), ("L", "a.tif")):
        Image.fromarray(NOISE[:, :, 0]).convert(mode).save(tmp_path / name)
        with Image.open(restored(identity, tmp_path / name, suffix=mode)) as found:
            assert found.mode == mode


@pytest.mark.parametrize("name", ["png", "jpeg", "tiff", "webp", "avif", "heif"])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_means_the_same_in_every_format(tmp_path: Path, name: str, mode: str) -> None:
    """A profile of greys counts beside one channel alone: viewers leave it aside elsewhere."""
    if name == "heif":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path, target = tmp_path / "a.png", tmp_path / "b"
    Image.new(mode, (64, 64), (64, 255)[: len(mode)] if mode == "LA" else 64).save(
        path, icc_profile=make_grey_profile(1.0)
    )
    photograph = read_photograph(path)
    content, notes = encode_photograph(photograph, photograph.srgb, name)
    target.write_bytes(content)
    with Image.open(target) as found:
        profile = found.info.get("icc_profile")
        values = int(np.asarray(found.convert("RGB"))[32, 32, 0])
        assert profile is None or (profile[16:20] == b"GRAY" and found.mode in ("L", "LA"))
    wanted = 64 if profile else int(photograph.srgb[0, 0, 0])
    assert abs(values - wanted) <= 2
    assert bool(profile) != any("no profile of greys" in note for note in notes)


def test_a_grey_avif_has_one_channel(identity: Restorer, tmp_path: Path) -> None:
    Image.new("L", (32, 32), 90).save(tmp_path / "a.avif", quality=95)
    content = restored(identity, tmp_path / "a.avif").read_bytes()
    assert content[content.index(b"av1C") + 6] & 0x10  # monochrome (AV1 in ISOBMFF, 2.3.3)


def test_a_lossless_webp_stays_lossless_behind_a_long_profile(
    identity: Restorer, tmp_path: Path
) -> None:
    path, noise = tmp_path / "a.webp", Image.fromarray(NOISE)
    long = (P3 or b"") + bytes(20_001)
    for options in ({"exact": True}, {"save_all": True, "append_images": [noise.rotate(180)]}):
        noise.save(path, lossless=True, icc_profile=long, **options)
        assert read_photograph(path).lossless
        with Image.open(restored(identity, path, suffix=str(len(options)))) as found:
            assert np.array_equal(np.asarray(found), NOISE)
    noise.save(path, quality=95, icc_profile=long)
    assert not read_photograph(path).lossless


@pytest.mark.parametrize(("name", "kind", "ending"), [
    ("png", "PNG", ".png"),
    ("jpeg", "JPEG", ".jpg"),
    ("webp", "WEBP", ".webp"),
    ("tiff", "TIFF", ".tif"),
    ("avif", "AVIF", ".avif"),
])  # fmt: skip
def test_formats_that_are_asked_for(
    identity: Restorer, tmp_path: Path, name: str, kind: str, ending: str
) -> None:
    flat = np.zeros((16, 16, 3), np.uint8) + np.array([180, 90, 60], np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.bmp")
    target = restored(identity, tmp_path / "a.bmp", format=name)
    assert target.suffix == ending
    with Image.open(target) as found:
        assert found.format == kind
        assert np.abs(np.asarray(found).astype(int) - flat).max() <= 4


def test_jpeg_is_written_without_subsampling_at_95(identity: Restorer, tmp_path: Path) -> None:
    from PIL import JpegImagePlugin

    Image.fromarray(NOISE).save(tmp_path / "a.jpg", quality=50)
    Image.fromarray(NOISE).save(tmp_path / "b.jpg", quality=95)
    with (
        Image.open(restored(identity, tmp_path / "a.jpg")) as found,
        Image.open(tmp_path / "b.jpg") as wanted,
    ):
        assert JpegImagePlugin.get_sampling(found) == 0
        assert found.quantization == wanted.quantization


def test_what_a_format_cannot_hold_is_said(identity: Restorer, tmp_path: Path) -> None:
    alpha = np.full((16, 24), 128, np.uint8)
    Image.fromarray(np.dstack([NOISE, alpha])).save(tmp_path / "a.png", icc_profile=P3)
    report = restore_files([tmp_path / "a.png"], tmp_path / "out", identity, None, format="jpeg")
    assert "transparency" in report.restored[0].notes[0]
    lost = encode_photograph(read_photograph(tmp_path / "a.png"), NOISE, "bmp")[1]
    assert len(lost) == 2 and "sRGB" in lost[0]
    Image.fromarray(NOISE).convert("CMYK").save(tmp_path / "c.jpg")
    report = restore_files([tmp_path / "c.jpg"], tmp_path / "out", identity, None)
    assert "CMYK" in report.restored[0].notes[0]


def test_bits_that_are_not_kept_are_said(identity: Restorer, tmp_path: Path) -> None:
    deep = Photograph(Stored(DEEP, "rgb"), DEEP, "PNG")
    (tmp_path / "a.png").write_bytes(encode_photograph(deep, DEEP, "png")[0])
    report = restore_files([tmp_path / "a.png"], tmp_path / "out", identity, None)
    assert report.restored[0].notes == ()
    report = restore_files([tmp_path / "a.png"], tmp_path / "out", identity, None, format="jpeg")
    assert report.restored[0].notes == ("JPEG is written with 8 bits a channel, of its 16",)

    inks = np.zeros((16, 24, 4), np.uint16) + 20_000
    tifffile.imwrite(tmp_path / "c.tif", inks, photometric="separated")
    report = restore_files([tmp_path / "c.tif"], tmp_path / "out", identity, None)
    assert report.restored[0].notes[0] == "it has 16 bits a channel, of which 8 are read"

    heif = pytest.importorskip("pillow_heif")
    heif.from_bytes("RGB;16", (24, 16), DEEP.tobytes()).save(tmp_path / "b.heic", quality=95)
    report = restore_files([tmp_path / "b.heic"], tmp_path / "out", identity, None)
    assert report.restored[0].notes == ("it has 10 bits a channel, of which 8 are read",)


def test_bits_of_an_avif_are_in_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.fromarray(NOISE).save(path)
    assert coded_bits(path) == 8
    content = bytearray(path.read_bytes())
    flags = content.index(b"av1C") + 6
    for bit, bits in ((0x40, 10), (0x60, 12)):
        content[flags] |= bit
        path.write_bytes(content)
        assert coded_bits(path) == bits


def test_a_phones_second_picture_is_told(identity: Restorer, tmp_path: Path) -> None:
    first, path = Image.fromarray(NOISE), tmp_path / "a.jpg"
    first.save(path, "MPO", save_all=True, append_images=[first.rotate(180)], icc_profile=P3)
    report = restore_files([path], tmp_path / "out", identity, None)
    assert report.restored[0].notes == ("it holds 2 pictures, of which the first is read",)
    with Image.open(report.restored[0].target) as found:
        assert (found.format, found.info["icc_profile"]) == ("JPEG", P3)
    with warnings.catch_warnings():  # a data set's pictures are only looked at
        warnings.simplefilter("error")
        read_rgb8(path)


def test_a_phones_gain_map_in_a_heic_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from mmfe_cache.images import reading

    pytest.importorskip("pillow_heif").register_heif_opener()
    path, opened = tmp_path / "a.heic", reading.opened
    Image.fromarray(NOISE).save(path)
    assert read_photograph(path).notes == ()

    @contextmanager
    def with_map(*words: object):  # pillow-heif reads such files and writes none
        with opened(*words) as image:
            image.info["aux"] = {"urn:com:apple:photo:2020:aux:hdrgainmap": [49]}
            yield image

    monkeypatch.setattr(reading, "opened", with_map)
    notes = ("it holds 1 map of gain or depth beside its picture, not kept",)
    assert read_photograph(path).notes == notes
    with warnings.catch_warnings():  # a data set's pictures are only looked at
        warnings.simplefilter("error")
        read_rgb8(path)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_network_runs_at_the_depth_of_its_input(identity: Restorer, kind: type) -> None:
    import torch

    changed = Restorer(identity.config).eval()
    torch.nn.init.normal_(changed.output.weight, std=0.02)
    eight = restore_image(changed, NOISE)
    white = 65535 if kind is np.uint16 else 1
    deep = restore_image(changed, (NOISE / 255 * white).astype(kind))
    assert deep.dtype == kind
    assert np.abs(deep / white * 255 - eight).max() <= 0.51


def test_a_heic_without_its_extra_is_one_line(
    identity: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmfe_cache.images import opening

    monkeypatch.setattr(opening, "has_heic", lambda: False)
    monkeypatch.setattr(opening, "has_raw", lambda: False)
    (tmp_path / "in").mkdir()
    for name in ("a.heic", "b.dng"):
        (tmp_path / "in" / name).write_bytes(bytes(64))
    Image.fromarray(NOISE).save(tmp_path / "in" / "c.png")
    report: RestoreReport = restore_files([tmp_path / "in"], tmp_path / "out", identity, None)
    assert not report.failed and len(report.restored) == 1
    reasons = {one.path.name: one.reason for one in report.left_out}
    assert "mmfe[heic]" in reasons["a.heic"] and "mmfe[raw]" in reasons["b.dng"]
    report = restore_files([tmp_path / "in" / "a.heic"], tmp_path / "out", identity, None)
    assert "mmfe[heic]" in str(report.failed[0][1])


def test_heic_in_and_out(identity: Restorer, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    flat = np.zeros((64, 96, 3), np.uint8) + np.array([180, 90, 60], np.uint8)
    flat[:32, :48] = 230
    Image.fromarray(flat).save(tmp_path / "a.heic", quality=95, icc_profile=P3, exif=exif(6))
    before = read_rgb8(tmp_path / "a.heic")
    target = restored(identity, tmp_path / "a.heic")
    with Image.open(target) as found:
        assert found.format == "HEIF" and found.info["icc_profile"] == P3
    assert np.abs(read_rgb8(target).astype(int) - before).max() <= 12


def write_dng(path: Path, linear: NDArray[np.float64], orientation: int = 1) -> None:
    """A camera's raw file: (H, W, 3) linear sRGB behind an RGGB mosaic of 16 bits."""
    import tifffile

    mosaic = linear[..., 1].copy()  # green, but at every second pixel of a row
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = linear[0::2, 0::2, 0], linear[1::2, 1::2, 2]
    # From CIE's XYZ to what this camera sees: linear sRGB (IEC 61966-2-1).
    matrix = (32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570)
    tags = [
        (274, "H", 1, orientation, True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, bytes([0, 1, 1, 2]), True),  # CFAPattern
        (50706, "B", 4, bytes([1, 4, 0, 0]), True),  # DNGVersion
        (50708, "s", 0, "a test's camera", True),  # UniqueCameraModel
        (50714, "H", 1, 0, True),  # BlackLevel
        (50717, "H", 1, 65535, True),  # WhiteLevel
        (50721, "2i", 9, [part for value in matrix for part in (value, 10_000)], True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    values = (mosaic * 65535).round().astype(np.uint16)
    tifffile.imwrite(path, values, photometric=32803, extratags=tags)


def test_a_raw_file_is_developed_upright_in_srgb(identity: Restorer, tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    left, right = np.array([0.2, 0.2, 0.2]), np.array([0.3, 0.1, 0.05])
    linear = np.empty((64, 96, 3))
    linear[:, :48], linear[:, 48:] = left, right
    write_dng(tmp_path / "a.dng", linear, orientation=6)
    before = read_rgb8(tmp_path / "a.dng")
    assert before.shape == (96, 64, 3)  # turned to the right: left is above
    grey, colour = before[24, 32].astype(int), before[72, 32].astype(int)
    assert np.ptp(grey) <= 1
    # LibRaw chooses the exposure; what the camera saw is right but for that one factor.
    seen = np.stack([grey, colour]) / 255
    light = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(light[1] / light[0].mean(), right / 0.2, rtol=0.03)
    target = restored(identity, tmp_path / "a.dng")
    assert target.suffix == ".tif"  # of 16 bits: nobody writes raw files
    assert np.abs(read_rgb8(target).astype(int) - before).max() <= 1
