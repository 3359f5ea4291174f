"""Copies of a PNG or JPEG file without the blocks beside its pixels that stop Pillow.

One broken or overlong block makes Pillow refuse a whole file, which viewers show all the same. The
first copy lacks the broken ones alone; each further one lacks more, and is for a block that is in
the way for a reason that is not seen here.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, PngImagePlugin

from mmfe_cache.names import first_few

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PIXELS = {"IHDR", "PLTE", "tRNS", "IDAT", "IEND"}
_FRAMES = {"acTL", "fcTL", "fdAT"}
PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_LEAST = 4096
"""Bytes that a text counts as at least: a million of them would be tried for minutes."""
_COLOURS = {"gAMA", "cHRM", "sRGB", "cICP"}
_PROFILE, _EXIF, _XMP = "colour profile", "EXIF", "XMP"
_SHOWN = {_PROFILE, _EXIF, "colour tags"}
"""What tells how the pixels are shown: their colours, and where they are turned."""


@dataclass(frozen=True)
class Bare:
    """A copy of a file.

    Attributes:
        content: its bytes.
        lost: what the copy lacks, in words.
    """

    content: bytes
    lost: tuple[str, ...]

    def notes(self, *, shown: bool = False) -> tuple[str, ...]:
        """What is lost, as a sentence; none where it is nothing.

        Args:
            shown: of what tells colours and orientation only, for a picture that is looked at.
        """
        lost = [word for word in dict.fromkeys(self.lost) if not shown or word in _SHOWN]
        said = f"its {first_few(lost)} could not be read"
        return (said if shown else f"{said}: it comes back without",) if lost else ()


class _Block(NamedTuple):
    """A chunk of a PNG, or a segment of a JPEG."""

    word: str  # what it holds
    whole: bytes  # as it lies there
    pixels: bool  # it is part of the picture itself
    sound: bool


def bare_copies(path: Path) -> Iterator[Bare]:
    """Copies of a PNG or JPEG file, the fullest first; none of other files."""
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:
        return
    if content.startswith(_PNG):
        yield from _copies(_PNG, list(_chunks(content)), b"")
    elif content.startswith(_JPEG):
        yield from _copies(_JPEG, *_segments(content))


def _copies(start: bytes, blocks: list[_Block], end: bytes) -> Iterator[Bare]:
    sound = {i for i, block in enumerate(blocks) if block.pixels or block.sound}

    def without(*words: str) -> set[int]:
        return {i for i in sound if blocks[i].word not in words}

    def only(*words: str) -> set[int]:
        return {i for i in sound if blocks[i].pixels or blocks[i].word in words}

    before: set[int] | None = set(range(len(blocks)))
    for kept in (
        sound,
        without("frames"),
        only(_PROFILE, _EXIF, "colour tags"),
        only(_EXIF, "colour tags"),
        only(),
    ):
        if kept != before:
            lost = tuple(block.word for i, block in enumerate(blocks) if i not in kept)
            yield Bare(start + b"".join(blocks[i].whole for i in sorted(kept)) + end, lost)
        before = kept


def _chunks(content: bytes) -> Iterator[_Block]:
    room = PngImagePlugin.MAX_TEXT_MEMORY
    for name, whole, sound in png_chunks(content):
        word, is_text = name.decode("latin-1"), name in PNG_TEXTS
        if sound and is_text:  # no more is unpacked than Pillow would take in all
            size = _size_in_png(whole) if room > 0 else None
            room -= PngImagePlugin.MAX_TEXT_CHUNK if size is None else max(size, _LEAST)
            sound = size is not None and room >= 0
        elif sound and word not in _PIXELS | _FRAMES:  # which cannot be tried alone
            sound = _size_in_png(whole) is not None
        yield _Block(_word_of(word, whole[8:-4]), whole, word in _PIXELS, sound)


def _word_of(name: str, data: bytes) -> str:
    if name.encode("latin-1") in PNG_TEXTS:
        keyword = data.split(b"\0", 1)[0].decode("latin-1")[:79]  # PNG's limit
        return _XMP if keyword == "XML:com.adobe.xmp" else f'text "{keyword}"'
    if name in _COLOURS:
        return "colour tags"
    if name in _FRAMES:
        return "frames"
    return {"iCCP": _PROFILE, "eXIf": _EXIF, "pHYs": "resolution"}.get(name, f"chunk {name}")


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Each chunk of a PNG: its name, all its bytes, and whether its checksum is right."""
    at = len(_PNG)
    while at + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        whole = content[at : at + 12 + length]
        sound = (
            len(whole) == 12 + length
            and re.fullmatch(rb"[A-Za-z]{4}", name) is not None
            and zlib.crc32(whole[4:-4]) == struct.unpack_from(">I", whole, 8 + length)[0]
        )
        yield name, whole, sound
        at += 12 + length


def _segments(content: bytes) -> tuple[list[_Block], bytes]:
    """A JPEG's segments before its pixels, and the rest."""
    blocks: list[_Block] = []
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        marker, length = content[at + 1], struct.unpack_from(">H", content, at + 2)[0]
        whole = content[at : at + 2 + length]
        # Adobe's tells what the channels are.
        pixels = not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker == 0xEE
        sound = pixels or _in_jpeg(whole)
        blocks.append(_Block(_word_of_segment(marker, whole[4:]), whole, pixels, sound))
        at += 2 + length
    return blocks, content[at:]


def _word_of_segment(marker: int, data: bytes) -> str:
    if marker == 0xFE:
        return "comment"
    starts = {
        b"Exif\0": _EXIF,
        b"http://ns.adobe.com/": _XMP,
        b"ICC_PROFILE\0": _PROFILE,
        b"MPF\0": "further pictures",
        b"Photoshop ": "IPTC",
        b"JFIF": "resolution",
    }
    found = [word for start, word in starts.items() if data.startswith(start)]
    return found[0] if found else f"block APP{marker & 15}"


@cache
def _tiny(format: str) -> bytes:
    """The smallest picture of a format, on which a block is tried."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, format)
    return buffer.getvalue()


def _size_in_png(whole: bytes) -> int | None:
    """How long the text in a chunk is, 0 where there is none; None where Pillow refuses it."""
    tiny, head = _tiny("PNG"), len(_PNG) + 25  # IHDR has 13 bytes
    try:
        with Image.open(io.BytesIO(tiny[:head] + whole + tiny[head:]), formats=["PNG"]) as image:
            texts: Any = getattr(image, "text", {})
            return sum(map(len, texts.values()))
    except Exception:  # whatever is wrong with it
        return None


def _in_jpeg(whole: bytes) -> bool:
    """Whether Pillow takes a segment."""
    if whole[4:].startswith(b"MPF\0"):
        return True  # it speaks of other places of the file, and cannot be tried alone
    tiny = _tiny("JPEG")
    try:
        with Image.open(io.BytesIO(tiny[:2] + whole + tiny[2:]), formats=["JPEG"]):
            return True
    except Exception:  # whatever is wrong with it
        return False
