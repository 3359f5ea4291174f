"""An XMP packet, patched byte by byte, so that it tells of the restored picture.

Names are looked for with the prefixes that XMP's and Google's specifications give them. A value is
an attribute or the content of an element. Every search is linear: a packet may have megabytes.
"""

from __future__ import annotations

import re

_IS = rb"\s*(?:=\s*[\"']|>)\s*"
_AFTER = rb"(?=\s*[\"'<])"

_ORIENTATION = re.compile(rb"(tiff:Orientation" + _IS + rb")[2-8]" + _AFTER)
_SIZES = tuple(
    re.compile(rb"((%s|%s)%s)(\d+)%s" % (across, down, _IS, _AFTER))
    for across, down in (
        (rb"exif:PixelXDimension", rb"exif:PixelYDimension"),
        (rb"tiff:ImageWidth", rb"tiff:ImageLength"),
    )
)

_FILM = re.compile(rb"(\bG?Camera:(?:MotionPhoto|MicroVideo)" + _IS + rb")1" + _AFTER)
_FILM_OFFSET = re.compile(rb"(\bG?Camera:MicroVideoOffset" + _IS + rb")\d+" + _AFTER)
_FILM_ITEM = re.compile(rb"\bItem:Semantic" + _IS + rb"MotionPhoto" + _AFTER)

_EXTENDED = b"xmpNote:HasExtendedXMP"
_EXTENSION = re.compile(_EXTENDED + rb"\s*=\s*(?:\"[^\"<]{0,64}\"|'[^'<]{0,64}')")

_STALE = (b"xmp:Thumbnails", b"xap:Thumbnails", b"Container:Directory", b"GContainer:Directory")
"""Pictures of the picture as it was, and lists of what lies behind it."""


def upright_xmp(xmp: bytes | None, turned: bool) -> bytes | None:
    """The packet of a picture whose pixels have been turned upright and restored.

    Its thumbnails go; a film, or a continuation of the packet, that is not there any more is no
    longer claimed. All else stays as it is.

    Args:
        xmp: the packet as it lay in the file.
        turned: width and height were exchanged.
    """
    if not xmp:
        return None
    xmp = _ORIENTATION.sub(rb"\g<1>1", xmp)
    if turned:
        for sides in _SIZES:
            xmp = _exchanged(xmp, sides)
    for name in _STALE:
        xmp = _without_element(xmp, name)
    xmp = _FILM_OFFSET.sub(rb"\g<1>0", _FILM.sub(rb"\g<1>0", xmp))
    return _without_element(_EXTENSION.sub(b"", xmp), _EXTENDED)


def beyond_xmp(xmp: bytes | None) -> tuple[str, ...]:
    """What a file holds and does not keep, by its own packet; a sentence each."""
    notes: tuple[str, ...] = ()
    if xmp and (_FILM.search(xmp) or _FILM_ITEM.search(xmp)):
        notes += ("it holds a film behind its picture, which is not kept",)
    if xmp and _EXTENDED in xmp:
        notes += ("its XMP goes on in further segments, which are not kept",)
    return notes


def _exchanged(xmp: bytes, sides: re.Pattern[bytes]) -> bytes:
    found = {match[2]: match[3] for match in sides.finditer(xmp)}
    if len(found) != 2:
        return xmp
    (one, first), (other, second) = found.items()
    values = {one: second, other: first}
    return sides.sub(lambda match: match[1] + values[match[2]], xmp)


def _without_element(xmp: bytes, name: bytes) -> bytes:
    """All elements of a name taken out; the packet as it is where one has no end."""
    kept, at = list[bytes](), 0
    start = re.compile(rb"<%s(?=[\s>/])" % name)
    while found := start.search(xmp, at):
        end = xmp.find(b">", found.end())
        if end >= 0 and xmp[end - 1 : end] != b"/":
            close = xmp.find(b"</" + name, end)
            end = xmp.find(b">", close) if close >= 0 else -1
        if end < 0:
            return xmp
        kept.append(xmp[at : found.start()])
        at = end + 1
    return b"".join([*kept, xmp[at:]])
