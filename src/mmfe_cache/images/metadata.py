"""What a file holds beside its pixels: EXIF, XMP, IPTC, a JPEG's comment, a PNG's texts.

EXIF blocks are read and patched byte by byte, as XMP is (`xmp`). Re-writing one with a library
would move what camera makers' notes point to, and one broken entry would cost all the others.
Captions, authors and rights lie in IPTC records (IIM 4.2) in a JPEG's Photoshop block and in a
TIFF; programs that make pictures write what they did into a PNG's text chunks. Nothing here fails:
what cannot be read is not there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import IO, Any, NamedTuple

from PIL import Image, PngImagePlugin

from mmfe_cache.images.bare import PNG_TEXTS, png_chunks

_ORIENTATION = 0x0112
_EXIF_IFD, _PLACE_IFD = 0x8769, 0x8825
_INTEROPERABILITY_IFD = 0xA005
"""Within the Exif IFD."""

_WIDTH, _HEIGHT = 0xA002, 0xA003
"""PixelXDimension and PixelYDimension, in the Exif IFD."""

_SHORT, _LONG = 3, 4

_PREFIX = b"Exif\0\0"

# Exif 2.32 wants one SHORT; LONG is written by many and read by all but the browsers.
_FORMATS = {_SHORT: "H", _LONG: "I"}


class _Entry(NamedTuple):
    tag: int
    type: int
    number: int
    at: int  # offset of the four bytes that hold the value, or point to it


_TOLD_IN_TIFF = (269, 270, 271, 272, 305, 306, 315, 33432, 0x4746, *range(0x9C9B, 0x9CA0))
"""What a TIFF file's own tags tell beyond its pixels: name, description, camera, software, date,
author, copyright; and Windows' stars, title, comment, author, keywords and subject."""


class _Text(str):
    """Text as Pillow reads it, a character for every byte; the same bytes are written again.

    It would write question marks in the place of all that is not ASCII.
    """

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        """The bytes that were read, whatever is asked for."""
        return super().encode("latin-1", errors)


def told_in_tiff(exif: Image.Exif) -> dict[int, Any]:
    """What of an EXIF block a TIFF's own tags tell, by their numbers.

    The IFDs of Exif and of the place are dictionaries. Text is written as the bytes that were read.
    """
    told: dict[int, Any] = {}
    for tag in _TOLD_IN_TIFF:
        if isinstance(value := exif.get(tag), str | bytes | int):
            told[tag] = _as_read(value)
    for pointer in (_EXIF_IFD, _PLACE_IFD):
        inner = {tag: _as_read(value) for tag, value in exif.get_ifd(pointer).items()}
        # A number that would point to where its IFD lay.
        if inner.pop(_INTEROPERABILITY_IFD, None) and (
            further := exif.get_ifd(_INTEROPERABILITY_IFD)
        ):
            inner[_INTEROPERABILITY_IFD] = dict(further)
        if inner:
            told[pointer] = inner
    return told


def _as_read(value: Any) -> Any:
    return _Text(value) if isinstance(value, str) else value


def exif_of(image: Image.Image) -> bytes | None:
    """The EXIF block as it lies there; of a TIFF, made of the tags that tell of the photograph."""
    if image.format != "TIFF":
        block = image.info.get("exif")
        return block if isinstance(block, bytes) else None
    try:
        found, made = image.getexif(), Image.Exif()
        made.endian = found.endian
        made.update(told_in_tiff(found))
        return made.tobytes() if len(made) else None
    except Exception:  # whatever is wrong with it, it is no reason to fail
        return None


def orientation_of(exif: bytes | None) -> int:
    """The orientation, 1 to 8; 1 (upright) where the block does not say it in a valid way.

    Args:
        exif: an EXIF block, with or without its ``Exif`` header; None for none.
    """
    if not exif:
        return 1
    block = exif.removeprefix(_PREFIX)
    order = _byte_order(block)
    for entry in _entries(block, order, _first_ifd(block, order)):
        if entry.tag == _ORIENTATION:
            value = _number(block, order, entry)
            return value if value is not None and 1 <= value <= 8 else 1
    return 1


def orientation_of_png(image: Image.Image) -> int:
    """The orientation of an open PNG whose pixels were not read yet.

    EXIF may follow the pixels (PNG, third edition, 5.6); to look there, Pillow would decode them.
    """
    if (exif := image.info.get("exif")) is not None:
        return orientation_of(exif)
    opened: Any = image
    file: IO[bytes] = opened.fp
    before = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return orientation_of(file.read(length))
            file.seek(length + 4, 1)
    finally:
        file.seek(before)
    return 1


def orientation_of_tiff(file: IO[bytes]) -> int:
    """The orientation of an open TIFF file's first picture, by the same rules.

    Pillow takes the first of several values and any type of number; viewers do not.
    """
    before = file.tell()
    try:
        file.seek(0)
        head = file.read(16)
        if (big := {b"II+\0": "<", b"MM\0+": ">"}.get(head[:4])) and len(head) == 16:
            return orientation_of(_small_tiff(file, big, struct.unpack_from(f"{big}Q", head, 8)[0]))
        order = _byte_order(head)
        file.seek(_first_ifd(head, order))
        count = file.read(2)
        entries = file.read(12 * struct.unpack(f"{order}H", count)[0]) if len(count) == 2 else b""
    finally:
        file.seek(before)
    # The first directory alone, as a block of its own: an orientation lies in its entry.
    return orientation_of(head[:4] + struct.pack(f"{order or '<'}I", 8) + count + entries)


def _small_tiff(file: IO[bytes], order: str, first: int) -> bytes:
    """The first directory of a BigTIFF file as a TIFF's of its own, with the same entries."""
    file.seek(first)
    start = file.read(8)
    count = struct.unpack(f"{order}Q", start)[0] if len(start) == 8 else 0
    found = file.read(20 * min(count, 0xFFFF))
    entries = [
        struct.pack(f"{order}HHI", tag, kind, min(number, 0xFFFFFFFF)) + value
        for tag, kind, number, value in struct.iter_unpack(
            f"{order}HHQ4s4x", found[: len(found) - len(found) % 20]
        )
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return head + b"".join(entries)


def upright(exif: bytes | None, turned: bool) -> bytes | None:
    """The block of a picture whose pixels have been turned upright; all else stays as it is.

    The thumbnail is unlinked: it shows the picture as it was.

    Args:
        exif: the block as it lay in the file.
        turned: width and height were exchanged.
    """
    if not exif:
        return None
    block = bytearray(exif.removeprefix(_PREFIX))
    order = _byte_order(block)
    first = _first_ifd(block, order)
    sides: dict[int, _Entry] = {}
    for entry in _entries(block, order, first):
        if entry.tag == _ORIENTATION and entry.number >= 1:
            # As one SHORT, whatever was there: 1 is then read by everyone.
            struct.pack_into(f"{order}HIHH", block, entry.at - 6, _SHORT, 1, 1, 0)
        elif entry.tag == _EXIF_IFD and turned:
            inner = struct.unpack_from(f"{order}I", block, entry.at)[0]
            sides = {e.tag: e for e in _entries(block, order, inner) if e.tag in (_WIDTH, _HEIGHT)}
    if len(sides) == 2 and sides[_WIDTH].type == sides[_HEIGHT].type:
        a, b = sides[_WIDTH].at, sides[_HEIGHT].at
        block[a : a + 4], block[b : b + 4] = block[b : b + 4], block[a : a + 4]
    if order and first + 2 <= len(block):
        after = first + 2 + 12 * struct.unpack_from(f"{order}H", block, first)[0]
        if after + 4 <= len(block):
            block[after : after + 4] = bytes(4)
    return _PREFIX + bytes(block)


def _byte_order(block: bytes | bytearray) -> str:
    """The struct module's sign for the block's byte order; empty where it is no TIFF header."""
    return {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]), "")


def _first_ifd(block: bytes | bytearray, order: str) -> int:
    return struct.unpack_from(f"{order}I", block, 4)[0] if order and len(block) >= 8 else 0


def _entries(block: bytes | bytearray, order: str, at: int) -> Iterator[_Entry]:
    if not order or at < 8 or at + 2 > len(block):
        return
    count = struct.unpack_from(f"{order}H", block, at)[0]
    for start in range(at + 2, at + 2 + 12 * count, 12):
        if start + 12 > len(block):
            return
        tag, kind, number = struct.unpack_from(f"{order}HHI", block, start)
        yield _Entry(tag, kind, number, start + 8)


def _number(block: bytes | bytearray, order: str, entry: _Entry) -> int | None:
    form = _FORMATS.get(entry.type)
    if form is None or entry.number != 1:
        return None
    return struct.unpack_from(f"{order}{form}", block, entry.at)[0]


IPTC_TAG = 33723
"""Of a TIFF."""

_IPTC_RESOURCE = 0x0404
_PHOTOSHOP = b"Photoshop 3.0\0"
_PROFILES = "Raw profile type "  # EXIF, XMP and ICC profiles as ImageMagick writes them into a PNG
_READ_AS = {
    "exif": "exif",
    "app1": "exif",
    "xmp": "xmp",
    "icc": "icc_profile",
    "icm": "icc_profile",
}
"""Under what Pillow gives the same, where a chunk of its own holds it."""
_XMP = "XML:com.adobe.xmp"


@dataclass(frozen=True)
class Captions:
    """Of one picture.

    Attributes:
        iptc: the IPTC records as they lie there.
        comments: of a JPEG.
        texts: name and content of each text chunk of a PNG as it lies there, but for XMP.
    """

    iptc: bytes | None = None
    comments: tuple[bytes, ...] = ()
    texts: tuple[tuple[bytes, bytes], ...] = ()

    def lost_in(self, name: str) -> tuple[str, ...]:
        """What of them a format cannot hold, in words; ``name`` as in `encoding.SUFFIXES`."""
        words = {
            "iptc": ("IPTC", ("jpeg", "tiff")),
            "comments": ("comment", ("jpeg",)),
            "texts": ("texts", ("png",)),
        }
        here = [words[field.name] for field in fields(self) if getattr(self, field.name)]
        return tuple(word for word, formats in here if name not in formats)


def captions_of(image: Image.Image, content: Callable[[], bytes]) -> Captions:
    """Of an open picture; ``content`` gives the bytes of its file.

    Of several texts with one keyword, or several comments, Pillow's ``info`` has only the last.
    """
    try:
        if image.format in ("JPEG", "MPO"):
            blocks: Any = image.info.get("photoshop")
            iptc = blocks.get(_IPTC_RESOURCE) if isinstance(blocks, dict) else None
            segments: list[tuple[str, bytes]] = getattr(image, "applist", [])
            comments = tuple(data for name, data in segments if name == "COM" and data)
            return Captions(_bytes(iptc), comments)
        if image.format == "TIFF":
            return Captions(_bytes(getattr(image, "tag_v2", {}).get(IPTC_TAG)))
        if image.format == "PNG":
            return Captions(texts=tuple(_texts_of_png(content(), image)))
    except Exception:  # whatever is wrong with them, it is no reason to fail
        pass
    return Captions()


def _texts_of_png(content: bytes, image: Image.Image) -> Iterator[tuple[bytes, bytes]]:
    for name, whole, sound in png_chunks(content):
        word = whole[8:-4].split(b"\0", 1)[0].decode("latin-1")
        if sound and name in PNG_TEXTS and word != _XMP and not _is_read(word, image):
            yield name, whole[8:-4]


def _is_read(word: str, image: Image.Image) -> bool:
    """Whether a text is another copy of what was read; it would tell of the picture as it was."""
    kind = word.removeprefix(_PROFILES).strip().lower() if word.startswith(_PROFILES) else ""
    return bool(image.info.get(_READ_AS.get(kind, "")))


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


def photoshop_block(iptc: bytes) -> bytes:
    """IPTC records as the payload of a JPEG's APP13 segment."""
    padded = iptc + b"\0" * (len(iptc) % 2)
    return _PHOTOSHOP + b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + padded


def png_texts(captions: Captions, xmp: bytes | None) -> PngImagePlugin.PngInfo | None:
    """Texts and XMP as the chunks of a PNG; None where there are none."""
    if not captions.texts and not xmp:
        return None
    info = PngImagePlugin.PngInfo()
    if xmp:
        info.add_itxt(_XMP, xmp.decode("utf-8", "replace"))
    for name, content in captions.texts:
        info.add(name, content)
    return info
