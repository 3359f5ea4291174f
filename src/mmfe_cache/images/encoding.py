"""Writing image files: a plain PNG, or a restored photograph with all that its original had."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from mmfe_cache.errors import DataError
from mmfe_cache.images.decoding import Stored
from mmfe_cache.images.metadata import IPTC_TAG, photoshop_block, png_texts, told_in_tiff
from mmfe_cache.images.opening import HEIC_SUFFIXES, RAW_SUFFIXES, has_heic
from mmfe_cache.images.profiles import Pixels, Profile, profile_of, srgb_profile
from mmfe_cache.images.reading import Photograph
from mmfe_cache.io import write_file
from mmfe_cache.samples import ImageArray

Format = Literal["png", "jpeg", "webp", "tiff", "avif"]
"""The formats that can be asked for."""

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "bmp": (".bmp",),
    "ppm": (".ppm",),
    "pgm": (".pgm",),
    "pnm": (".pnm",),
    "heif": tuple(sorted(HEIC_SUFFIXES)),
}
"""Every format that can be written, with its files' endings; the first is what a new file gets."""

QUALITY = 95
"""Of lossy formats, 0 to 100; JPEG and AVIF without chroma subsampling."""

_PIXMAPS = {"ppm", "pgm", "pnm"}
"""Netpbm's: of colours, of greys, and of either."""

_DEEP = {"png", "tiff", *_PIXMAPS}
_WITH_ALPHA = {"png", "webp", "tiff", "avif", "heif"}
_WITH_METADATA = {"png", "jpeg", "webp", "tiff", "avif", "heif"}
_JPEG_SEGMENT = 65_533
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type by the number of channels."""


def encode_png(image: ImageArray) -> bytes:
    """The image as a PNG file's bytes; equal pixels give equal bytes on one Pillow version."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def write_png(path: Path | str, image: ImageArray) -> None:
    """Write ``image`` so that ``path`` is either whole or absent, also after a power cut.

    Args:
        path: where; missing parent folders are made.
        image: (H, W, 3) uint8.
    """
    write_file(Path(path), encode_png(image))


def format_of(suffix: str) -> str | None:
    """The format that files of this ending are written in; None where there is none."""
    ending = suffix.lower()
    for name, endings in SUFFIXES.items():
        if ending in endings:
            return name
    return "tiff" if ending in RAW_SUFFIXES else None


@dataclass
class _Sheet:
    """What is about to be written."""

    original: Photograph
    values: Pixels  # (H, W, 1 or 3)
    alpha: Pixels | None
    profile: bytes | None
    notes: list[str]

    @property
    def samples(self) -> Pixels:
        """(H, W, C), the alpha as the last channel."""
        return self.values if self.alpha is None else np.dstack([self.values, self.alpha])

    def picture(self) -> Image.Image:
        """For Pillow; 8-bit."""
        samples = self.samples
        return Image.fromarray(
            np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
        )


def encode_photograph(
    original: Photograph, restored: Pixels, name: str
) -> tuple[bytes, tuple[str, ...]]:
    """A restored photograph as a file's bytes, with its original's profile, EXIF, XMP and alpha.

    Args:
        original: what was restored.
        restored: (H, W, 3), of the type of ``original.srgb``, in sRGB.
        name: a key of `SUFFIXES`.

    Returns:
        The bytes, and a sentence for each thing that this format cannot hold.

    Raises:
        DataError: it cannot be written in this format here.
    """
    check_colours(original, name)
    sheet = _sheet(original, restored, name)
    if name not in _DEEP:
        if sheet.values.dtype == np.uint16:
            sheet.notes.append(f"{name.upper()} is written with 8 bits a channel, of its 16")
        sheet.values = _shallow(sheet.values)
        sheet.alpha = None if sheet.alpha is None else _shallow(sheet.alpha)
    if sheet.alpha is not None and name not in _WITH_ALPHA:
        sheet.notes.append(f"{name.upper()} holds no transparency: it lies on white")
        _lay_on_white(sheet)
    if name in _PIXMAPS:
        content = _pixmap(sheet, name)
    elif name == "tiff":
        content = _tiff(sheet)
    elif sheet.values.dtype == np.uint16:
        content = _png_16(sheet)
    else:
        content = _through_pillow(sheet, name)
    return content, tuple(sheet.notes)


def check_colours(original: Photograph, name: str) -> None:
    """Refuse a coloured photograph for a format of greys; best asked before it is restored.

    Args:
        original: what is to be restored.
        name: a key of `SUFFIXES`.

    Raises:
        DataError: it has colours, and the format holds none.
    """
    if name == "pgm" and original.stored.space != "grey":
        raise DataError(
            "a coloured photograph cannot be written as PGM, which holds greys alone",
            expected="a name that ends in .ppm",
            remedy="name the file so with -o, or choose a --format, such as png",
        )


def _sheet(original: Photograph, restored: Pixels, name: str) -> _Sheet:
    stored = original.stored
    after = _like(restored, stored.space)
    values, embedded, notes = after, original.profile, list[str]()
    profile = profile_of(original.profile, stored.space)
    if _is_for_greys(embedded) and _is_coloured(name, stored):
        embedded = None  # it says nothing of colours: viewers would leave it aside
        if profile is not None:
            notes.append(f"{name.upper()} holds no profile of greys: it is written in sRGB")
    elif profile is not None and name in _WITH_METADATA:
        values, embedded = _own_colours(original, profile, after, notes)
    elif profile is not None:
        notes.append(f"{name.upper()} holds no colour profile: it is written in sRGB")
    if name not in _WITH_METADATA and (original.exif or original.xmp):
        notes.append(f"{name.upper()} holds no EXIF and no XMP")
    if lost := original.captions.lost_in(name):
        notes.append(f"{name.upper()} does not hold its {', '.join(lost)}")
    return _Sheet(original, values, stored.alpha, embedded, notes)


def _is_for_greys(profile: bytes | None) -> bool:
    return profile is not None and profile[16:20] == b"GRAY"


def _is_coloured(name: str, stored: Stored) -> bool:
    """Whether a format has three channels for this picture, also where it is grey."""
    return name in ("webp", "avif") or (name == "heif" and stored.alpha is not None)


def _own_colours(
    original: Photograph, profile: Profile, after: Pixels, notes: list[str]
) -> tuple[Pixels, bytes | None]:
    before = _like(original.srgb, original.stored.space)
    values = profile.back(original.stored.values, before, after)
    if values is not None:
        return values, original.profile
    notes.append("its colour profile only leads to other colours: it is written in sRGB")
    return after, srgb_profile()


def _like(pixels: Pixels, space: str) -> Pixels:
    """(H, W, 3) as the file's own number of channels: grey stays grey."""
    if space != "grey":
        return pixels
    # Rec. 601's weights, as Pillow's own conversion; they add up to 1, so a grey keeps its value.
    grey = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return np.rint(grey).astype(pixels.dtype)[:, :, None]


def _shallow(values: Pixels) -> Pixels:
    if values.dtype == np.uint8:
        return values
    return np.rint(values / 257).astype(np.uint8)


def _lay_on_white(sheet: _Sheet) -> None:
    alpha = sheet.alpha
    assert alpha is not None
    white = np.iinfo(sheet.values.dtype).max
    share = alpha[:, :, None].astype(np.float32) / np.iinfo(alpha.dtype).max
    mixed = sheet.values * share + white * (1 - share)
    sheet.values, sheet.alpha = np.rint(mixed).astype(sheet.values.dtype), None


def _through_pillow(sheet: _Sheet, name: str) -> bytes:
    picture, kept, options = sheet.picture(), sheet.original, dict[str, Any]()
    if name in _WITH_METADATA and sheet.profile:
        options["icc_profile"] = sheet.profile
    if kept.dpi and name in ("png", "jpeg", "bmp"):
        options["dpi"] = kept.dpi
    if name == "png":
        options |= {
            "compress_level": 3,
            "exif": kept.exif,
            "pnginfo": png_texts(kept.captions, kept.xmp),
        }
    elif name == "jpeg":
        options |= {"quality": QUALITY, "subsampling": 0, **_jpeg_blocks(sheet)}
    elif name == "webp":
        loss: dict[str, Any] = {"lossless": True} if kept.lossless else {"quality": QUALITY}
        options |= {"exact": True, "exif": kept.exif, "xmp": kept.xmp, **loss}
        if picture.mode in ("L", "LA"):
            picture = picture.convert("RGB" if picture.mode == "L" else "RGBA")
    elif name == "avif":
        _need(".avif", "AVIF needs a newer Pillow: pip install -U Pillow")
        grey = picture.mode in ("L", "LA")
        options |= {"quality": QUALITY, "subsampling": "4:0:0" if grey else "4:4:4"}
        options |= {"exif": kept.exif, "xmp": kept.xmp}
    elif name == "heif":
        if not has_heic():
            raise DataError("HEIC cannot be written", remedy="pip install pillow-heif")
        options |= {"quality": QUALITY, "chroma": 444, "exif": kept.exif, "xmp": kept.xmp}
    given = {key: value for key, value in options.items() if value is not None}
    return _saved(picture, name, given, sheet.notes)


def _saved(picture: Image.Image, name: str, options: dict[str, Any], notes: list[str]) -> bytes:
    """Save, and once more without the metadata where an odd block of them is in the way."""
    kind = {"heif": "HEIF", "jpeg": "JPEG"}.get(name, name.upper())
    for given in (options, {k: v for k, v in options.items() if k not in ("exif", "xmp")}):
        buffer = io.BytesIO()
        try:
            picture.save(buffer, kind, **given)
        except Exception as problem:
            if "exif" in given or "xmp" in given:
                continue
            raise DataError(
                f"the photograph cannot be written as {name.upper()}",
                got=f"{picture.width}x{picture.height} pixels: {problem or type(problem).__name__}",
                remedy="choose another --format, such as png",
            ) from problem
        if given is not options:
            notes.append("its EXIF or XMP could not be written and was left out")
        return buffer.getvalue()
    raise AssertionError("the second attempt has no metadata")


def _need(suffix: str, remedy: str) -> None:
    Image.init()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise DataError(f"{suffix[1:].upper()} cannot be written", remedy=remedy)


def _jpeg_blocks(sheet: _Sheet) -> dict[str, Any]:
    kept = sheet.original
    blocks: dict[str, Any] = {}
    extra = b""
    if kept.exif and len(kept.exif) <= _JPEG_SEGMENT:
        blocks["exif"] = kept.exif
    elif kept.exif:
        sheet.notes.append("its EXIF is longer than JPEG's 64 KiB and was left out")
    if kept.xmp and len(kept.xmp) + len(_XMP_HEADER) <= _JPEG_SEGMENT:
        extra += _segment(0xE1, _XMP_HEADER + kept.xmp)
    elif kept.xmp:
        sheet.notes.append("its XMP is longer than JPEG's 64 KiB and was left out")
    if kept.captions.iptc:
        block = photoshop_block(kept.captions.iptc)
        if len(block) <= _JPEG_SEGMENT:
            extra += _segment(0xED, block)
        else:
            sheet.notes.append("its IPTC is longer than JPEG's 64 KiB and was left out")
    extra += b"".join(_segment(0xFE, comment) for comment in kept.captions.comments)
    return {**blocks, "extra": extra}


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _png_16(sheet: _Sheet) -> bytes:
    """16 bits a channel, which Pillow writes for grey only (PNG, third edition)."""
    samples, kept = sheet.samples, sheet.original
    height, width, channels = samples.shape
    head = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", head)]
    if sheet.profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(sheet.profile)))
    if kept.dpi:
        across, down = (round(number / 0.0254) for number in kept.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if kept.exif:
        chunks.append((b"eXIf", kept.exif.removeprefix(b"Exif\0\0")))
    if (texts := png_texts(kept.captions, kept.xmp)) is not None:
        chunks += [(name, content) for name, content, *_ in texts.chunks]
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    up = rows.copy()
    up[1:] -= rows[:-1]  # filter type 2: the difference from the row above, modulo 256
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1)
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 3)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )  # fmt: skip


def _tiff_tags(sheet: _Sheet) -> TiffImagePlugin.ImageFileDirectory_v2:
    """What is kept of EXIF and XMP, as a TIFF's own tags."""
    tags, kept = TiffImagePlugin.ImageFileDirectory_v2(), sheet.original
    if kept.xmp:
        tags[700] = kept.xmp
        tags.tagtype[700] = 1  # BYTE, as XMP's specification asks
    if kept.captions.iptc:
        tags[IPTC_TAG] = kept.captions.iptc
        tags.tagtype[IPTC_TAG] = 7  # UNDEFINED
    if not kept.exif:
        return tags
    try:
        exif = Image.Exif()
        exif.load(kept.exif)
        for tag, value in told_in_tiff(exif).items():
            tags[tag] = value
            if isinstance(value, bytes):
                tags.tagtype[tag] = 1  # BYTE, as Windows writes its own
    except Exception:
        sheet.notes.append("its EXIF could not be written and was left out")
    return tags


def _tiff(sheet: _Sheet) -> bytes:
    """8 or 16 bits a channel (TIFF 6.0), deflated, with differences of neighbours.

    Pillow writes 8-bit colours only, and loses the Exif IFD where it compresses them.
    """
    samples, kept = sheet.samples, sheet.original
    height, width, channels = samples.shape
    difference = samples.copy()
    difference[:, 1:] -= samples[:, :-1]
    packed = zlib.compress(difference.astype(f"<u{samples.itemsize}").tobytes(), 6)
    colours = channels - (sheet.alpha is not None)
    tags = _tiff_tags(sheet)
    single: dict[int, Any] = {256: width, 257: height, 258: (8 * samples.itemsize,) * channels}
    single |= {259: 8, 262: 2 if colours == 3 else 1, 277: channels, 278: height, 284: 1, 317: 2}
    single |= {273: 0, 279: len(packed)}
    if sheet.alpha is not None:
        single[338] = (2,)
    if kept.dpi:
        single |= {282: kept.dpi[0], 283: kept.dpi[1], 296: 2}
    if sheet.profile:
        single[34675] = sheet.profile
    for tag, value in single.items():
        tags[tag] = value
    # Pillow adds the directory's own length to the offset: the pixels follow it.
    return b"II*\0" + struct.pack("<I", 8) + tags.tobytes(8) + packed


def _pixmap(sheet: _Sheet, name: str) -> bytes:
    """A PPM holds three channels, a PGM one, a PNM what the picture has."""
    values = sheet.values
    if name == "ppm" and values.shape[2] == 1:
        sheet.notes.append("PPM holds colours: its grey is written in three equal channels")
        values = np.repeat(values, 3, axis=2)
    height, width, channels = values.shape
    head = b"P%d\n%d %d\n%d\n" % (
        6 if channels == 3 else 5, width, height, np.iinfo(values.dtype).max,
    )  # fmt: skip
    pixels: NDArray[Any] = values if values.dtype == np.uint8 else values.astype(">u2")
    return head + pixels.tobytes()
