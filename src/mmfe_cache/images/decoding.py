"""From an open image file to the numbers that it stores: deep, straight and unconverted.

Pillow holds 16-bit samples for one channel only: of a 16-bit colour picture it keeps the high
bytes. The low bytes are there too, under the raw mode of the other byte order, so such a picture
is decoded twice. Where white lies is told by type and format, never by a picture's own maximum.
A camera's raw file is developed by LibRaw instead (the extra `raw`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.errors import DataError
from mmfe_cache.images.metadata import (
    exif_of,
    orientation_of,
    orientation_of_png,
    orientation_of_tiff,
    upright,
)
from mmfe_cache.images.opening import decoding, max_pixels, opened, too_large
from mmfe_cache.images.profiles import Pixels, Space, lab_to_srgb

FLOAT_LIMIT = 2.0
"""Floats are in [0, 1]. A little more is overshoot and clipped; from here on it is another scale,
such as 0 to 255, which cannot be told from a single file."""

_PHOTOMETRIC, _BITS, _FORMAT = 262, 258, 339
_PLANAR, _SUBSAMPLING = 284, 530
_STRIPS, _STRIP_BYTES = 273, 279

_LOW_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B",
    "RGBX;16L": "RGBX;16B",
    "RGBX;16B": "RGBX;16L",
    "RGBX;16N": "RGBX;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
}
"""The raw mode that takes the low byte of each sample where the other takes the high one; `N` is
this machine's order, little endian on every machine that torch runs on."""

_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""By what few-bit greys are multiplied; a PNG's transparent one is told before that."""

_UNMULTIPLIED = {"RGBa;16L": "RGBA;16L", "RGBa;16B": "RGBA;16B", "RGBa;16N": "RGBA;16N"}


class UnknownRange(ValueError):  # noqa: N818 - it names the condition, as in the message
    """The file does not tell which value is white."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a picture file stores, as stored.

    Attributes:
        values: (H, W, C) uint8 or uint16; white is the largest value of the type.
        space: what the channels are.
        alpha: (H, W) of the same type, straight; None where there is none.
        note: what was lost in decoding; a sentence.
    """

    values: Pixels
    space: Space
    alpha: Pixels | None = None
    note: str = ""

    def turned(self, orientation: int) -> Stored:
        """Upright, by the EXIF orientation."""
        if orientation == 1:
            return self
        turn = _TURNS[orientation]
        alpha = None if self.alpha is None else np.ascontiguousarray(turn(self.alpha))
        return Stored(np.ascontiguousarray(turn(self.values)), self.space, alpha, self.note)


_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}
"""What undoes each EXIF orientation."""


def prepare(image: Image.Image) -> int:
    """Keep Pillow from turning an open picture by itself, and tell how it is to be turned.

    Pillow turns TIFF files, and no others, as it loads them.

    Returns:
        The orientation, 1 to 8. Afterwards ``image.size`` is the stored size.
    """
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        png = image.format == "PNG"
        return orientation_of_png(image) if png else orientation_of(image.info.get("exif"))
    raw: Any = image
    raw.load_end = lambda: None
    raw._size = (int(tags[256]), int(tags[257]))
    return orientation_of_tiff(raw.fp)


def decode(image: Image.Image, again: Callable[[], Image.Image]) -> Stored:
    """Read the pixels of an open picture that `prepare` has seen.

    Args:
        image: not loaded yet.
        again: opens the same file once more; for deep colour.

    Raises:
        UnknownRange: its values have no known white.
    """
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    if tags is not None:
        if _tag(tags, _PLANAR) == 2 and _tag(tags, _BITS) == 16:
            return _planes_16(image, tags)
        _correct_ycbcr(image, tags)
    if image.format == "PNG" and image.mode == "RGBA" and _raw_mode(image) == "LA;16B":
        return _grey_alpha_16(image)
    if (white := _white_of_pixmap(image)) > 255:
        return _deep_pixmap(image, white)
    if _raw_mode(image) in _LOW_BYTES or _raw_mode(image) in _UNMULTIPLIED:
        return _deep_colour(image, again)
    if tags is not None:
        _refuse_unknown(image, tags)
    step = _GREY_STEPS.get(_raw_mode(image), 1)
    image.load()
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _deep_grey(image, tags)
    return _shallow(image, step)


def _shallow(image: Image.Image, step: int) -> Stored:
    if image.mode in {"LA", "La"}:
        pair = np.array(image.convert("LA"))
        return Stored(pair[:, :, :1], "grey", pair[:, :, 1])
    if image.mode == "L" and isinstance(image.info.get("transparency"), int):
        values = np.array(image)
        clear = image.info["transparency"]
        return Stored(values[:, :, None], "grey", _seen(values != clear * step))
    if image.mode in {"PA", "RGBA", "RGBa"} or "transparency" in image.info:
        four = np.array(image.convert("RGBA"))
        return Stored(four[:, :, :3], "rgb", four[:, :, 3])
    if image.mode in {"1", "L"}:
        return Stored(np.array(image.convert("L"))[:, :, None], "grey")
    if image.mode == "CMYK":
        return Stored(np.array(image), "cmyk")
    if image.mode == "LAB":
        return Stored(lab_to_srgb(np.array(image)), "rgb")
    return Stored(np.array(image.convert("RGB")), "rgb")


def _deep_grey(image: Image.Image, tags: Any) -> Stored:
    values = np.asarray(image)
    inverted = tags is not None and _tag(tags, _PHOTOMETRIC) == 0
    if values.dtype.kind == "f":
        values = _unit_floats(values) * np.float32(65535)
        if inverted:
            values = 65535 - values
        return Stored(np.rint(values).astype(np.uint16)[:, :, None], "grey")
    deep = np.clip(values, 0, 65535).astype(np.uint16)
    if tags is not None and _tag(tags, _BITS) == 12:
        deep = np.rint(deep * (65535 / 4095)).astype(np.uint16)
    if inverted:  # Pillow inverts 8 bits and less, and forgets the others
        deep = np.uint16(65535) - deep
    clear = image.info.get("transparency")
    alpha = _seen_16(deep != clear) if isinstance(clear, int) else None
    return Stored(deep[:, :, None], "grey", alpha)


def _unit_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise UnknownRange("the image holds values that are not finite")
    lowest, highest = float(values.min(initial=0)), float(values.max(initial=0))
    if highest > FLOAT_LIMIT or lowest < 1 - FLOAT_LIMIT:
        raise UnknownRange(f"floats from {lowest:g} to {highest:g}")
    return np.clip(values, 0, 1).astype(np.float32)


def _refuse_unknown(image: Image.Image, tags: Any) -> None:
    bits, form = _tag(tags, _BITS), _tag(tags, _FORMAT)
    if form == 2:
        raise UnknownRange(f"signed integers of {bits} bits")
    if image.mode == "I":
        raise UnknownRange(f"integers of {bits} bits")


def _deep_colour(image: Image.Image, again: Callable[[], Image.Image]) -> Stored:
    """16-bit RGB with or without alpha, at its full depth."""
    clear = image.info.get("transparency")
    raw = _raw_mode(image)
    plain = _UNMULTIPLIED.get(raw, raw)
    low = again()
    prepare(low)
    values = _joined(_bytes_of(image, plain), _bytes_of(low, _LOW_BYTES[plain]))
    if values.shape[2] == 3:
        alpha = None
        if isinstance(clear, tuple):
            alpha = _seen_16((values != np.array(clear, np.uint16)).any(axis=2))
        return Stored(values, "rgb", alpha)
    colours, alpha = values[:, :, :3], np.ascontiguousarray(values[:, :, 3])
    if raw in _UNMULTIPLIED:
        share = np.maximum(alpha, 1).astype(np.float32)[:, :, None] / 65535
        colours = np.rint(np.minimum(colours / share, 65535)).astype(np.uint16)
    return Stored(np.ascontiguousarray(colours), "rgb", alpha)


def _white_of_pixmap(image: Image.Image) -> int:
    """The value of white in a colour PNM; 255 in every other picture."""
    if image.format != "PPM" or image.mode != "RGB" or _codec(image) == "raw":
        return 255
    opened: Any = image
    return int(opened.tile[0][3][-1])


def _deep_pixmap(image: Image.Image, white: int) -> Stored:
    """A colour PNM of more than 8 bits, of which Pillow keeps 8; scaled to 16."""
    opened: Any = image
    name, _, offset, _ = opened.tile[0]
    opened.fp.seek(offset)
    content = opened.fp.read()
    width, height = image.size
    count = 3 * height * width
    if name == "ppm_plain":  # numbers in words, and comments
        words = re.sub(rb"#[^\r\n]*", b"", content).split(maxsplit=count)[:count]
        flat = np.array([int(word) for word in words], np.int64)
    else:
        flat = np.frombuffer(content, ">u2", min(count, len(content) // 2))
    if len(flat) < count:
        raise OSError("image file is truncated")
    values = np.rint(np.clip(flat, 0, white) * (65535 / white)).astype(np.uint16)
    return Stored(values.reshape(height, width, 3), "rgb")


def _planes_16(image: Image.Image, tags: Any) -> Stored:
    """16-bit colours stored plane by plane.

    Pillow's own reader takes such planes for 8-bit ones, without a word; libtiff, for what is
    compressed or tiled, hands over the high bytes.
    """
    channels = len(image.getbands())
    if _codec(image) == "raw" and _STRIPS in tags:
        opened: Any = image
        order = "<" if tags.prefix == b"II" else ">"
        content = b""
        for offset, length in zip(tags[_STRIPS], tags[_STRIP_BYTES], strict=True):
            opened.fp.seek(offset)
            content += opened.fp.read(length)
        width, height = image.size
        flat = np.frombuffer(content, f"{order}u2", channels * height * width)
        values = flat.reshape(channels, height, width).transpose(1, 2, 0).astype(np.uint16)
        note = ""
    else:
        _use_libtiff(image, tags, f"{image.mode};16N")
        image.load()
        values = np.array(image)
        note = "its 16 bits lie in compressed planes, of which 8 are read"
    values = np.ascontiguousarray(values)
    if channels == 3:
        return Stored(values, "rgb", None, note)
    return Stored(values[:, :, :3], "rgb", np.ascontiguousarray(values[:, :, 3]), note)


def _correct_ycbcr(image: Image.Image, tags: Any) -> None:
    """Let libtiff read uncompressed YCbCr.

    Pillow takes subsampled pixels for whole ones; until 13, all of them for RGB of four bytes.
    """
    if _codec(image) != "raw" or _tag(tags, _PHOTOMETRIC) != 6:
        return
    subsampled = tags.get(_SUBSAMPLING, (2, 2)) != (1, 1)
    if image.mode == "RGB" or (subsampled and image.mode == "YCbCr"):
        opened: Any = image
        opened._mode = "RGB"
        _use_libtiff(image, tags, "RGBX")


def _use_libtiff(image: Image.Image, tags: Any, raw_mode: str) -> None:
    opened: Any = image
    opened.use_load_libtiff = True
    kind = type(opened.tile[0])
    # Until Pillow 13 the decoder was also told what the compression is called.
    named = () if int(PIL.__version__.split(".")[0]) >= 13 else (opened._compression,)
    tile = ("libtiff", (0, 0, *image.size), 0, (raw_mode, *named, False, tags.offset))
    opened.tile = [tile if kind is tuple else kind(*tile)]


def _codec(image: Image.Image) -> str:
    tiles: Any = getattr(image, "tile", None)
    return tiles[0][0] if tiles else ""


def _grey_alpha_16(image: Image.Image) -> Stored:
    """16-bit grey with alpha in a PNG: its four bytes are read as if they were four channels."""
    four = _bytes_of(image, "RGBA")
    return Stored(
        _joined(four[:, :, :1], four[:, :, 1:2]), "grey", _joined(four[:, :, 2], four[:, :, 3])
    )


def _joined(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    values = high.astype(np.uint16)
    values <<= 8
    values |= low
    return values


def _bytes_of(image: Image.Image, raw_mode: str) -> NDArray[np.uint8]:
    """Decode an open picture under another raw mode."""
    opened: Any = image
    tiles: list[Any] = []
    for name, box, offset, given in opened.tile:
        rest = (raw_mode, *given[1:]) if isinstance(given, tuple) else raw_mode
        tiles.append((name, box, offset, rest))
    kind = type(opened.tile[0])
    opened.tile = tiles if kind is tuple else [kind(*tile) for tile in tiles]
    opened.load()
    return np.asarray(opened)


def _raw_mode(image: Image.Image) -> str:
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return ""
    given = tiles[0][3]
    first = given[0] if isinstance(given, tuple) and given else given
    return first if isinstance(first, str) else ""


def _seen(visible: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(visible, np.uint8(255), np.uint8(0))


def _seen_16(visible: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return np.where(visible, np.uint16(65535), np.uint16(0))


def _tag(tags: Any, number: int) -> Any:
    """A TIFF tag's value; the first where several channels agree on it."""
    value = tags.get(number)
    return value[0] if isinstance(value, tuple) and value else value


def develop(path: Path) -> NDArray[np.uint16]:
    """Develop a camera's raw file as it was set: its white balance, sRGB, upright.

    Returns:
        (H, W, 3), 0 to 65535.

    Raises:
        DataError: it cannot be developed, or has more than `max_pixels`.
    """
    with decoding(path):
        import rawpy

        with rawpy.imread(str(path)) as raw:
            sizes = raw.sizes
            count = sizes.width * sizes.height
            if count > max_pixels():
                raise too_large(path, f"{sizes.width}x{sizes.height} pixels", count)
            developed: Any = raw.postprocess(
                use_camera_wb=True,
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
                gamma=(2.4, 12.92),  # sRGB's curve
            )
            return developed


def raw_exif(path: Path) -> bytes | None:
    """The EXIF block of a camera's raw file: most are TIFF files at their head.

    Returns:
        With orientation 1, as `develop` turns the picture; None where there is none to read.
    """
    try:
        with opened(path) as image:
            prepare(image)
            return upright(exif_of(image), turned=False)
    except DataError:
        return None
