"""What people wrote beside a picture: IPTC records, a JPEG's comment, a PNG's texts.

Captions, authors and rights lie in IPTC records (IIM 4.2) in a JPEG's Photoshop block and in a
TIFF; programs that make pictures write what they did into a PNG's text chunks. Nothing here fails:
what cannot be read is not there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image, PngImagePlugin

IPTC_TAG = 33723
"""Of a TIFF."""

_IPTC_RESOURCE = 0x0404
_PHOTOSHOP = b"Photoshop 3.0\0"
_PROFILES = "Raw profile type "  # EXIF, XMP and ICC profiles as ImageMagick writes them into a PNG
_XMP = "XML:com.adobe.xmp"


@dataclass(frozen=True)
class Captions:
    """Of one picture.

    Attributes:
        iptc: the IPTC records as they lie there.
        comment: of a JPEG.
        texts: keyword and text of each text chunk of a PNG, but for XMP.
    """

    iptc: bytes | None = None
    comment: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()

    def lost_in(self, name: str) -> tuple[str, ...]:
        """What of them a format cannot hold, in words; ``name`` as in `encoding.SUFFIXES`."""
        words = {
            "iptc": ("IPTC", ("jpeg", "tiff")),
            "comment": ("comment", ("jpeg",)),
            "texts": ("texts", ("png",)),
        }
        here = [words[field.name] for field in fields(self) if getattr(self, field.name)]
        return tuple(word for word, formats in here if name not in formats)


def captions_of(image: Image.Image) -> Captions:
    """Of an open picture whose pixels were read: a PNG's texts may follow them."""
    try:
        if image.format in ("JPEG", "MPO"):
            blocks: Any = image.info.get("photoshop")
            iptc = blocks.get(_IPTC_RESOURCE) if isinstance(blocks, dict) else None
            comment = image.info.get("comment")
            return Captions(_bytes(iptc), _bytes(comment))
        if image.format == "TIFF":
            return Captions(_bytes(getattr(image, "tag_v2", {}).get(IPTC_TAG)))
        if image.format == "PNG":
            found: dict[str, str] = getattr(image, "text", {})
            return Captions(
                texts=tuple(
                    (word, str(text))
                    for word, text in found.items()
                    if word != _XMP and not word.startswith(_PROFILES)
                )
            )
    except Exception:  # whatever is wrong with them, it is no reason to fail
        pass
    return Captions()


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
    for word, text in captions.texts:
        info.add_text(word, text)  # an iTXt chunk where Latin-1 cannot hold it
    return info
