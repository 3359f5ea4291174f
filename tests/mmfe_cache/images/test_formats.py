"""Every format, read as an independent reader or a closed form says; pictures made on the spot."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mmfe_cache.errors import DataError
from mmfe_cache.images import encode_photograph, read_photograph, read_rgb8, read_size
from mmfe_cache.images.colour_tags import make_profile

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (21, 34, 3)).astype(np.uint16)
DEEP_ALPHA = RNG.integers(0, 65536, (21, 34)).astype(np.uint16)
GREY = DEEP[:, :, 0]


def smooth(height: int = 24, width: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 10, columns * 6, (rows + columns) * 4], axis=-1).astype(np.uint8)


def png(
    path: Path,
    depth: int,
    kind: int,
    rows: bytes,
    size: tuple[int, int],
    *chunks: tuple[bytes, bytes],
) -> None:
    """A PNG written by hand: ``rows`` holds filter bytes and samples."""
    head = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c))
            for n, c in parts
        )
    )


def unfiltered(samples: np.ndarray) -> bytes:
    rows = samples.astype(">u2" if samples.dtype == np.uint16 else "u1")
    return b"".join(b"\0" + row.tobytes() for row in rows)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_at_full_depth(tmp_path: Path, channels: int) -> None:
    samples = np.dstack([DEEP, DEEP_ALPHA])[
        :, :, [[0], [0, 3], [0, 1, 2], [0, 1, 2, 3]][channels - 1]
    ]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    png(tmp_path / "a.png", 16, kind, unfiltered(samples), samples.shape[:2])
    stored = read_photograph(tmp_path / "a.png").stored
    colours = samples[:, :, : channels - 1 + channels % 2]
    assert stored.values.dtype == np.uint16
    assert np.array_equal(stored.values, colours)
    if channels % 2 == 0:
        assert stored.alpha is not None and np.array_equal(stored.alpha, samples[:, :, -1])
    else:
        high = np.broadcast_to(colours >> 8, DEEP.shape)
        assert np.array_equal(read_rgb8(tmp_path / "a.png"), high)


@pytest.mark.parametrize("options", [
    {},
    {"byteorder": ">"},
    {"compression": "zlib", "predictor": True},
    {"compression": "zlib", "byteorder": ">"},
    {"planarconfig": "separate"},
    {"planarconfig": "separate", "byteorder": ">"},
    {"planarconfig": "separate", "compression": "zlib"},
    {"tile": (16, 16)},
])  # fmt: skip
@pytest.mark.parametrize("kind", ["rgb", "alpha", "premultiplied"])
def test_sixteen_bit_tiff_at_full_depth(tmp_path: Path, options: dict, kind: str) -> None:
    samples = DEEP if kind == "rgb" else np.dstack([DEEP, DEEP_ALPHA])
    extra = {"rgb": (), "alpha": ("unassalpha",), "premultiplied": ("assocalpha",)}[kind]
    if kind == "premultiplied":
        scaled = np.rint(DEEP * (DEEP_ALPHA[:, :, None] / 65535)).astype(np.uint16)
        samples = np.dstack([scaled, DEEP_ALPHA])
    given = samples.transpose(2, 0, 1) if "planarconfig" in options else samples
    tifffile.imwrite(tmp_path / "a.tif", given, photometric="rgb", extrasamples=extra, **options)
    if kind != "rgb" and "planarconfig" in options and "compression" not in options:
        pytest.skip("Pillow opens no such file")
    stored = read_photograph(tmp_path / "a.tif").stored
    if "planarconfig" in options and "compression" in options:
        if kind != "premultiplied":
            assert np.array_equal(stored.values, DEEP >> 8)
            assert "8 are read" in stored.note
        return
    if kind == "premultiplied":
        visible = DEEP_ALPHA > 20_000
        off = np.abs(stored.values.astype(int) - DEEP)[visible]
        assert off.max() <= 2
    else:
        assert np.array_equal(stored.values, DEEP)
    if kind != "rgb":
        assert stored.alpha is not None and np.array_equal(stored.alpha, DEEP_ALPHA)


@pytest.mark.parametrize("bits", [1, 8, 16, 32])
@pytest.mark.parametrize("white", ["minisblack", "miniswhite"])
def test_tiff_in_which_zero_is_white(tmp_path: Path, bits: int, white: str) -> None:
    values = {1: GREY > 32768, 8: GREY.astype(np.uint8), 16: GREY}.get(bits)
    if values is None:
        values = (GREY / 65535).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=white)
    scale = {1: 255, 8: 1, 16: 1 / 256, 32: 255}[bits]
    shown = values.astype(np.float64) * scale
    if white == "miniswhite":
        shown = 255 - shown if bits != 16 else (65535 - values.astype(np.float64)) / 256
    assert np.abs(read_rgb8(tmp_path / "a.tif")[:, :, 0] - shown).max() <= 1


def test_twelve_bit_tiff_is_scaled_by_its_own_white(tmp_path: Path) -> None:
    values = np.array([[0, 4095, 2048, 1024]], np.uint16)
    packed = bytearray()
    for a, b in values.reshape(-1, 2).tolist():
        packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    body = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", t, 4, 1, v if t != 273 else 8 + 2 + 12 * len(tags) + 4)
        for t, v in tags.items()
    )
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + packed)
    assert read_rgb8(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255, 128, 64]


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_uncompressed_subsampled_ycbcr_tiff(tmp_path: Path, subsampling: tuple[int, int]) -> None:
    """Each block: its luminances row by row, then one Cb and one Cr (TIFF 6.0, section 21)."""
    across, down = subsampling
    y = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10 + 40
    cb, cr = 90, 170
    packed = bytearray()
    for top in range(0, 4, down):
        for left in range(0, 4, across):
            packed += y[top : top + down, left : left + across].tobytes() + bytes([cb, cr])
    tags = {
        256: 4,
        257: 4,
        258: 8,
        259: 1,
        262: 6,
        273: 0,
        277: 3,
        278: 4,
        279: len(packed),
        530: 0,
    }
    start = 8 + 2 + 12 * len(tags) + 4
    body = struct.pack("<H", len(tags))
    for tag, value in tags.items():
        if tag == 530:
            body += struct.pack("<HHIHH", tag, 3, 2, across, down)
        elif tag == 258:  # three times 8 does not fit into the entry
            body += struct.pack("<HHII", tag, 3, 3, start)
        else:
            body += struct.pack("<HHII", tag, 4, 1, start + 6 if tag == 273 else value)
    content = b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + struct.pack("<3H", 8, 8, 8)
    (tmp_path / "a.tif").write_bytes(content + packed)
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)
    wanted = np.clip(np.stack([red, green, blue], axis=-1), 0, 255)
    assert np.abs(read_rgb8(tmp_path / "a.tif") - wanted).max() <= 2


def planar_tiff(path: Path, samples: np.ndarray, orientation: int, pages: int) -> None:
    """A TIFF written by hand, 16 bits plane by plane; all pages show the same samples."""
    height, width, channels = samples.shape
    plane = 2 * height * width
    entries = 11
    size = 2 + 12 * entries + 4
    content = samples.transpose(2, 0, 1).astype("<u2").tobytes()
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    for page in range(pages):
        at = 8 + len(content)
        starts = [8 + plane * channel for channel in range(channels)]
        values = struct.pack("<3H3I3I", *[16] * 3, *starts, *[plane] * 3)
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, at + size), (259, 4, 1, 1),
            (262, 4, 1, 2), (273, 4, 3, at + size + 6), (274, 3, 1, orientation),
            (277, 4, 1, 3), (278, 4, 1, height), (279, 4, 3, at + size + 18), (284, 4, 1, 2),
        ]  # fmt: skip
        after = at + size + len(values) if page + 1 < pages else 0
        content += struct.pack("<H", entries)
        content += b"".join(struct.pack("<HHII", *tag) for tag in tags)
        content += struct.pack("<I", after) + values
    path.write_bytes(head + content)


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_planes_of_several_pages_stand_upright(
    tmp_path: Path, orientation: int, pages: int
) -> None:
    planar_tiff(tmp_path / "a.tif", DEEP, orientation, pages)
    upright = DEEP if orientation == 1 else np.rot90(DEEP, -1)
    assert np.array_equal(read_photograph(tmp_path / "a.tif").srgb, upright)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(read_rgb8(tmp_path / "a.tif"), upright >> 8)


@pytest.mark.parametrize("values", [
    np.array([[0, 127.5, 255]], np.float32),
    np.array([[0, 65535]], np.float32),
    np.array([[-5, 0.5]], np.float32),
    np.array([[0, 3]], np.uint32),
    np.array([[0, 3]], np.int32),
    np.array([[-3, 3]], np.int16),
    np.array([[-3, 3]], np.int8),
    np.array([[np.nan, 0.5]], np.float32),
])  # fmt: skip
def test_a_range_that_cannot_be_known_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    with pytest.raises(DataError, match=r"a\.tif.*white") as problem:
        read_rgb8(tmp_path / "a.tif")
    assert "divide" in str(problem.value)


def test_overshoot_of_floats_is_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(-0.02, 1.02, 64, dtype=np.float32), (8, 1))
    ramp[3, 3] = 1.3
    tifffile.imwrite(tmp_path / "a.tif", ramp, photometric="minisblack")
    wanted = np.rint(np.clip(ramp, 0, 1) * 255)
    assert np.abs(read_rgb8(tmp_path / "a.tif")[:, :, 0] - wanted).max() <= 1


def test_a_dark_pgm_is_as_dark_as_its_png(tmp_path: Path) -> None:
    for brightest in (200, 256, 65535):
        values = np.array([[0, 100, brightest]], np.uint16)
        (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + values.astype(">u2").tobytes())
        Image.fromarray(values).save(tmp_path / "a.png")
        assert read_rgb8(tmp_path / "a.pgm")[0, :, 0].tolist() == (values[0] >> 8).tolist()
        assert np.array_equal(read_rgb8(tmp_path / "a.pgm"), read_rgb8(tmp_path / "a.png"))
    (tmp_path / "b.pgm").write_bytes(b"P5 3 1 1023\n" + np.array([0, 512, 1023], ">u2").tobytes())
    assert read_rgb8(tmp_path / "b.pgm")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("white", [256, 1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_deep_colour_pnm_at_full_depth(tmp_path: Path, white: int, plain: bool) -> None:
    values = (DEEP.astype(int) % (white + 1)).astype(np.uint16)
    words = b"# all of it\n" + b" ".join(b"%d" % n for n in values.ravel().tolist())
    pixels = words if plain else values.astype(">u2").tobytes()
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P%d\n34 21\n%d\n" % (3 if plain else 6, white) + pixels)
    stored = read_photograph(path).stored
    assert np.array_equal(stored.values, np.rint(values * (65535 / white)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="truncated"):
        read_rgb8(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "tiff-deflate", "avif", "heic"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    image, path = smooth(), tmp_path / f"a.{suffix.split('-')[0]}"
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True},
               "avif": {"quality": 100, "subsampling": "4:4:4"},
               "heic": {"quality": 100, "chroma": 444},
               "tiff-deflate": {"compression": "tiff_adobe_deflate"}}.get(suffix, {})  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    # As bytes: pillow-heif turns its pictures by those alone.
    Image.fromarray(image).save(path, exif=exif.tobytes(), **options)
    plain = Image.fromarray(image)
    plain.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(plain)).astype(int)
    assert read_size(path) == wanted.shape[:2]
    read = read_rgb8(path)
    assert read.shape == wanted.shape
    assert np.abs(read - wanted).max() <= 6
    photograph = read_photograph(path)
    assert photograph.srgb.shape == wanted.shape
    if photograph.exif:
        again = Image.Exif()
        again.load(photograph.exif)
        assert again.get(0x0112, 1) == 1


def test_exif_behind_a_pngs_pixels_counts(tmp_path: Path) -> None:
    """The chunk may follow them (PNG, third edition, 5.6)."""
    path = tmp_path / "a.png"
    Image.fromarray(smooth()).save(path)
    content, block = (
        path.read_bytes(),
        exif_block(3, struct.pack("<H", 6)).removeprefix(b"Exif\0\0"),
    )
    path.write_bytes(content[:-12] + chunk(b"eXIf", block) + content[-12:])
    wanted = np.rot90(smooth(), -1)
    assert read_size(path) == wanted.shape[:2]
    assert np.array_equal(read_rgb8(path), wanted)
    photograph = read_photograph(path)
    assert np.array_equal(photograph.srgb, wanted)
    again = Image.Exif()
    again.load(photograph.exif)
    assert again[0x0112] == 1


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_tiffs_of_both_kinds_are_turned_and_keep_their_tags(
    tmp_path: Path, order: str, big: bool
) -> None:
    path = tmp_path / "a.tif"
    tags = [(274, "H", 1, 6, True), (271, "s", 0, "A camera", True)]
    tifffile.imwrite(
        path, smooth(), bigtiff=big, byteorder=order, photometric="rgb", extratags=tags
    )
    wanted = np.rot90(smooth(), -1)
    assert read_size(path) == wanted.shape[:2]
    photograph = read_photograph(path)
    assert np.array_equal(photograph.srgb, wanted)
    again = Image.Exif()
    again.load(photograph.exif)
    assert again[271] == "A camera"


@pytest.mark.parametrize(("source", "target"), [
    ("tif", "tiff"), ("tif", "png"), ("tif", "jpeg"), ("tif", "webp"), ("jpg", "tiff"),
])  # fmt: skip
def test_exif_of_and_for_a_tiff_keeps_its_bytes_and_its_inner_parts(
    tmp_path: Path, source: str, target: str
) -> None:
    name, path = "© José".encode(), tmp_path / f"a.{source}"
    tags = ImageFileDirectory_v2() if source == "tif" else Image.Exif()
    tags[315] = tags[33432] = stand_in = "Q" * len(name)  # Pillow writes ASCII alone
    tags[0x8769] = {0xA434: stand_in, 0xA005: {1: "R98", 2: b"0100"}}
    tags[0x8825] = {0x1D: "2020:01:01"}
    Image.fromarray(smooth()).save(path, **{"tiffinfo" if source == "tif" else "exif": tags})
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name))
    photograph = read_photograph(path)
    content, notes = encode_photograph(photograph, photograph.srgb, target)
    assert content.count(name) == 3
    assert not notes
    with Image.open(io.BytesIO(content)) as written:
        found = written.getexif()
        assert found.get_ifd(0xA005) == {1: "R98", 2: b"0100"}
        assert found.get_ifd(0x8825) == {0x1D: "2020:01:01"}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_cut_bigtiff_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, smooth(), bigtiff=True, photometric="rgb")
    content = path.read_bytes()
    for cut in (12, 17, 30, 100):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError):
            read_rgb8(path)


def test_a_phones_picture_is_read_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmfe_cache.images import opening

    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.jpg"
    heif.from_pillow(Image.fromarray(smooth())).save(path, quality=100, chroma=444)
    # As in a process that has met no HEIC yet.
    for known in (Image.ID, Image.OPEN):
        monkeypatch.setattr(Image, "ID" if known is Image.ID else "OPEN", type(known)(known))
    Image.init()
    if "HEIF" in Image.OPEN:
        Image.ID.remove("HEIF")
        del Image.OPEN["HEIF"]
    opening.has_heic.cache_clear()
    monkeypatch.setattr(opening, "has_heic", lambda: False)
    with pytest.raises(DataError, match="pip install pillow-heif"):
        read_rgb8(path)
    monkeypatch.undo()
    assert np.abs(read_rgb8(path).astype(int) - smooth()).max() <= 6
    assert read_photograph(path).notes == ("it is a HEIF file, in spite of its name",)


def exif_block(kind: int, value: bytes, count: int = 1, order: str = "<") -> bytes:
    entry = struct.pack(f"{order}HHI", 0x0112, kind, count) + value.ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


SLOPPY = {
    "zero": exif_block(3, struct.pack("<H", 0)),
    "nine": exif_block(3, struct.pack("<H", 9)),
    "large": exif_block(3, struct.pack("<H", 65535)),
    "byte": exif_block(1, b"\x06"),
    "text": exif_block(2, b"6\0", 2),
    "word": exif_block(2, b"top\0", 4),
    "ratio": exif_block(5, struct.pack("<I", 26)) + struct.pack("<II", 6, 1),
    "ratio-by-zero": exif_block(5, struct.pack("<I", 26)) + struct.pack("<II", 6, 0),
    "signed": exif_block(8, struct.pack("<h", -6)),
    "float": exif_block(11, struct.pack("<f", 6.0)),
    "two": exif_block(3, struct.pack("<HH", 6, 6), 2),
    "none": exif_block(3, b"", 0),
    "many": exif_block(3, struct.pack("<I", 1 << 30), 1 << 30),
    "unknown-type": exif_block(99, b"\x06"),
    "garbage": b"Exif\0\0" + b"\x13\x37" * 30,
    "cut-header": b"Exif\0\0II*",
    "cut-entry": exif_block(3, struct.pack("<H", 6))[:18],
    "far": b"Exif\0\0II*\0" + struct.pack("<I", 1 << 31),
    "empty": b"Exif\0\0",
    "count": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535) + b"\xff" * 10,
}


# Pillow says so of some; what counts is what is made of them.
@pytest.mark.filterwarnings("ignore:(Corrupt EXIF data|Tag data larger than file):UserWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kind", SLOPPY)
def test_sloppy_exif_means_upright(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(smooth()).save(path, exif=SLOPPY[kind], **options)
    assert read_size(path) == (24, 40)
    assert read_rgb8(path).shape == (24, 40, 3)
    assert read_photograph(path).srgb.shape == (24, 40, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(3, "H"), (4, "I")])
def test_valid_orientations_count(tmp_path: Path, order: str, kind: int, form: str) -> None:
    block = exif_block(kind, struct.pack(f"{order}{form}", 6), order=order)
    Image.fromarray(smooth()).save(tmp_path / "a.png", exif=block)
    assert read_size(tmp_path / "a.png") == (40, 24)
    assert np.array_equal(read_rgb8(tmp_path / "a.png"), np.rot90(smooth(), -1))


@pytest.mark.parametrize("value", [0, 9, b"\x06", "6"])
def test_sloppy_orientation_of_a_tiff_means_upright(tmp_path: Path, value: object) -> None:
    tags = ImageFileDirectory_v2()
    if isinstance(value, bytes | str):
        tags.tagtype[0x0112] = 1 if isinstance(value, bytes) else 2
    tags[0x0112] = value
    Image.fromarray(smooth()).save(tmp_path / "a.tif", tiffinfo=tags)
    assert read_size(tmp_path / "a.tif") == (24, 40)
    assert np.array_equal(read_rgb8(tmp_path / "a.tif"), smooth())


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    right = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc or right)


@pytest.mark.filterwarnings("ignore::mmfe_cache.errors.PictureWarning")
@pytest.mark.parametrize("extra", [
    chunk(b"tEXt", b"a\0b", 7),
    chunk(b"gAMA", b"\0"),
    chunk(b"iCCP", b"x\0\5"),
    chunk(b"iCCP", b"x\0\0no zlib at all"),
    chunk(b"cHRM", b"\0" * 5),
    chunk(b"zTXt", b"long\0\0" + zlib.compress(bytes(3 << 20))),
    chunk(b"eXIf", b"\0"),
    chunk(b"sRGB", b""),
])  # fmt: skip
def test_broken_chunks_are_no_reason_to_fail(tmp_path: Path, extra: bytes) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:33] + extra + content[33:])
    assert np.array_equal(read_rgb8(tmp_path / "a.png"), smooth())
    assert read_size(tmp_path / "a.png") == (24, 40)


def test_several_frames_and_pages_are_told(tmp_path: Path) -> None:
    frames = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    for name, options in (("a.webp", {"lossless": True}), ("a.png", {}), ("a.tif", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        with pytest.warns(UserWarning, match="it holds 2"):
            assert np.array_equal(read_rgb8(tmp_path / name), smooth())
        assert "of which the first" in read_photograph(tmp_path / name).notes[0]


def test_transparency_of_few_bit_and_deep_greys(tmp_path: Path) -> None:
    """tRNS tells the sample as it is stored, before any scaling."""
    png(tmp_path / "a.png", 4, 0, b"\0\x05\xf0", (1, 4), (b"tRNS", b"\0\5"))
    assert read_rgb8(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255, 255, 0]
    deep = np.array([[300, 301, 0]], np.uint16)
    png(tmp_path / "b.png", 16, 0, unfiltered(deep), (1, 3), (b"tRNS", struct.pack(">H", 301)))
    assert read_rgb8(tmp_path / "b.png")[0, :, 0].tolist() == [1, 255, 0]
    colours = np.array([[[300, 2, 3], [301, 2, 3]]], np.uint16)
    clear = (b"tRNS", struct.pack(">3H", 301, 2, 3))
    png(tmp_path / "c.png", 16, 2, unfiltered(colours), (1, 2), clear)
    assert read_rgb8(tmp_path / "c.png")[0, :, 0].tolist() == [1, 255]


def test_lab_tiff(tmp_path: Path) -> None:
    """Closed form: L* = 50, a* = b* = 0 is the sRGB grey of linear light 0.18419, 119."""
    Image.new("LAB", (4, 4), (round(50 * 255 / 100), 128, 128)).save(tmp_path / "a.tif")
    assert np.abs(read_rgb8(tmp_path / "a.tif").astype(int) - 119).max() <= 2


@pytest.mark.parametrize("kind", ["lab", "wide"])
def test_a_lab_tiff_comes_back_as_rgb_without_its_profile(tmp_path: Path, kind: str) -> None:
    """Its values became sRGB's: a profile of L*a*b*, or of other colours, would mistell them."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    wide = make_profile((0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), 1.0)
    image = Image.new("LAB", (4, 4), (round(50 * 255 / 100), 128, 128))
    image.save(tmp_path / "a.tif", icc_profile=lab if kind == "lab" else wide)
    photograph = read_photograph(tmp_path / "a.tif")
    assert photograph.profile is None
    assert photograph.notes == ("it is L*a*b*, and comes back as RGB",)
    assert np.abs(photograph.srgb.astype(int) - 119).max() <= 2
    assert np.abs(read_rgb8(tmp_path / "a.tif").astype(int) - 119).max() <= 2
    content, _ = encode_photograph(photograph, photograph.srgb, "tiff")
    with Image.open(io.BytesIO(content)) as written:
        assert written.mode == "RGB" and "icc_profile" not in written.info


@pytest.mark.parametrize("top_down", [False, True])
def test_bmp_from_either_end(tmp_path: Path, top_down: bool) -> None:
    image = smooth(4, 4)
    Image.fromarray(image).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    if top_down:
        content[22:26] = struct.pack("<i", -4)
        content[54:] = content[54 + 36 : 54 + 48] + content[54 + 24 : 54 + 36] + content[54 + 12 : 54 + 24] + content[54:66]  # noqa: E501  # fmt: skip
    (tmp_path / "a.bmp").write_bytes(content)
    assert np.array_equal(read_rgb8(tmp_path / "a.bmp"), image)


def test_the_limit_of_pixels_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (200, 100)).save(tmp_path / "a.png")
    monkeypatch.setenv("MMFE_MAX_PIXELS", "10000")
    with pytest.raises(DataError, match="too large") as problem:
        read_rgb8(tmp_path / "a.png")
    assert "MMFE_MAX_PIXELS" in str(problem.value)
    monkeypatch.setenv("MMFE_MAX_PIXELS", "20000")
    assert read_rgb8(tmp_path / "a.png").shape == (100, 200, 3)


def test_reading_warns_of_nothing_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "JPEG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())  # its name lies; viewers go by content
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb8(tmp_path / "a.png").shape == (24, 40, 3)
