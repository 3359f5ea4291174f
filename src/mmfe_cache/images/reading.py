"""Reading image files as every colour-managed viewer shows them: upright, and in sRGB."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.errors import DataError, PictureWarning
from mmfe_cache.images.colour_tags import HighDynamicRange, coded_bits, colour_profile
from mmfe_cache.images.decoding import (
    Stored,
    UnknownRange,
    decode,
    develop,
    prepare,
    raw_exif,
)
from mmfe_cache.images.metadata import Captions, captions_of, exif_of, upright, upright_xmp
from mmfe_cache.images.opening import (
    RAW_SUFFIXES,
    extra_missing,
    is_lossless_webp,
    opened,
    without_metadata,
)
from mmfe_cache.images.profiles import Pixels, profile_of
from mmfe_cache.io import counted
from mmfe_cache.samples import ImageArray

_Result = TypeVar("_Result")

_XMP_TAG, _BITS_TAG = 700, 258


@dataclass(frozen=True)
class Photograph:
    """One picture file, whole: its pixels, and what a restored copy is to keep.

    Attributes:
        stored: upright, in the file's own colours.
        srgb: (H, W, 3) uint8 or uint16: upright, in sRGB, transparency left aside.
        format: Pillow's name of the format, or ``RAW``.
        profile: the ICC profile that ``stored`` is in; None for sRGB.
        exif: the EXIF block, its orientation reset.
        xmp: the XMP packet, its orientation reset.
        dpi: pixels an inch, across and down.
        captions: IPTC, comment and texts.
        lossless: for WebP, whether its pixels were stored without loss.
        notes: what the file holds and this reading leaves out or changes; a sentence each.
    """

    stored: Stored
    srgb: Pixels
    format: str
    profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    captions: Captions = field(default_factory=Captions)
    lossless: bool = True
    notes: tuple[str, ...] = ()

    def seen(self) -> ImageArray:
        """What `read_rgb8` gives: (H, W, 3) uint8, transparency laid on white."""
        return _on_white(self.srgb, self.stored.alpha)


def read_rgb8(path: Path | str) -> ImageArray:
    """Read an image file as a colour-managed viewer shows it, in 8-bit sRGB.

    The orientation is applied, once, whatever the format. An ICC profile (or PNG's gAMA, cHRM and
    cICP) is converted to sRGB; grey and palettes become RGB; transparency is laid on white; 16-bit
    values keep their high byte; floats are in [0, 1]. Broken metadata counts as none. Of several
    pages or frames the first is read, with a warning.

    Args:
        path: the file.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the file is missing, truncated, no image, of a range that cannot be known, or
            larger than `MAX_PIXELS`.
    """
    path = Path(path)
    pixels, notes = read_noted(path)
    for note in notes:
        warnings.warn(f"{path}: {note}", PictureWarning, stacklevel=2)
    return pixels


def read_noted(path: Path) -> tuple[ImageArray, tuple[str, ...]]:
    """What `read_rgb8` gives, and what it would warn of, a sentence each.

    Raises:
        DataError: as for `read_rgb8`.
    """
    if path.suffix.lower() in RAW_SUFFIXES and extra_missing(path.suffix.lower()) is None:
        return read_photograph(path).seen(), ()

    def work(
        image: Image.Image, again: Callable[[], Image.Image]
    ) -> tuple[ImageArray, tuple[str, ...]]:
        notes = _left_out(image)
        stored, profile = _stored(image, again, path)
        return _on_white(_to_srgb(stored, profile), stored.alpha), notes

    return _with_image(path, work)


def read_notes(path: Path) -> tuple[str, ...]:
    """What `read_rgb8` would warn of, a sentence each; no pixel is decoded.

    Raises:
        DataError: the file is missing, no image, or larger than `MAX_PIXELS`.
    """
    if path.suffix.lower() in RAW_SUFFIXES and extra_missing(path.suffix.lower()) is None:
        return ()

    def work(image: Image.Image, again: Callable[[], Image.Image]) -> tuple[str, ...]:
        del again
        return _left_out(image)

    return _with_image(path, work)


def read_size(path: Path | str) -> tuple[int, int]:
    """(height, width) in pixels from the header, orientation applied.

    Raises:
        DataError: the file is missing, no image, or larger than `MAX_PIXELS`.
    """
    path = Path(path)
    if path.suffix.lower() in RAW_SUFFIXES and extra_missing(path.suffix.lower()) is None:
        height, width = develop(path).shape[:2]
        return height, width

    def work(image: Image.Image, again: Callable[[], Image.Image]) -> tuple[int, int]:
        del again
        orientation = prepare(image)
        width, height = image.size
        return (width, height) if orientation >= 5 else (height, width)

    return _with_image(path, work)


def read_photograph(path: Path | str) -> Photograph:
    """Read an image file with everything that a restored copy is to keep.

    Raises:
        DataError: as for `read_rgb8`.
    """
    path = Path(path)
    if path.suffix.lower() in RAW_SUFFIXES and extra_missing(path.suffix.lower()) is None:
        pixels = develop(path)
        exif = raw_exif(path)
        return Photograph(Stored(pixels, "rgb"), pixels, "RAW", exif=exif)

    def work(image: Image.Image, again: Callable[[], Image.Image]) -> Photograph:
        # First: to count its pages Pillow opens the first anew, and exchanges its sides once more.
        notes = _left_out(image, pictures=True) + _in_spite_of_its_name(image, path)
        orientation = prepare(image)
        tags = exif_of(image) if image.format == "TIFF" else None
        lossless = image.format != "WEBP" or is_lossless_webp(path)
        if image.format in ("AVIF", "HEIF") and (bits := coded_bits(path)) > 8:
            notes += (f"it has {bits} bits a channel, of which 8 are read",)
        if image.mode in ("P", "PA"):
            notes += ("it has a palette, and comes back as RGB",)
        if image.mode == "LAB":
            notes += ("it is L*a*b*, and comes back as RGB",)
        stored, profile = _stored(image, again, path, orientation)
        exif = tags if image.format == "TIFF" else exif_of(image)  # PNG's may follow the pixels
        srgb = _to_srgb(stored, profile)
        if stored.note:
            notes += (stored.note,)
        elif stored.values.dtype == np.uint8 and (bits := _bits_of_tiff(image)) > 8:
            notes += (f"it has {bits} bits a channel, of which 8 are read",)
        if stored.space == "cmyk":
            notes += ("it is CMYK, and comes back as RGB",)
            stored, profile = Stored(srgb, "rgb", stored.alpha), None
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        if image.format == "TIFF":
            xmp = getattr(image, "tag_v2", {}).get(_XMP_TAG)
        return Photograph(
            stored,
            srgb if srgb.shape[2] == 3 else np.repeat(srgb, 3, axis=2),
            str(image.format),
            profile=profile,
            exif=upright(exif, orientation >= 5),
            xmp=upright_xmp(xmp.encode() if isinstance(xmp, str) else xmp),
            dpi=_dpi(image.info.get("dpi"), orientation >= 5),
            captions=captions_of(image),
            lossless=lossless,
            notes=notes,
        )

    return _with_image(path, work)


def _with_image(
    path: Path, work: Callable[[Image.Image, Callable[[], Image.Image]], _Result]
) -> _Result:
    """Do ``work`` on an open image, and once more without metadata where they were in its way."""

    def once(content: bytes | None) -> _Result:
        others: list[Any] = []

        def again() -> Image.Image:
            other = opened(path, content)
            others.append(other)
            return other.__enter__()

        try:
            with opened(path, content) as image:
                try:
                    return work(image, again)
                except (UnknownRange, HighDynamicRange) as problem:
                    raise _cannot_be_known(path, problem) from None
        finally:
            for other in others:
                other.__exit__(None, None, None)

    try:
        return once(None)
    except DataError:
        for bare in without_metadata(path):  # a decoder may have failed over such a block only
            try:
                return once(bare)
            except DataError:
                continue
        raise


def _stored(
    image: Image.Image,
    again: Callable[[], Image.Image],
    path: Path,
    orientation: int | None = None,
) -> tuple[Stored, bytes | None]:
    """Upright pixels in the file's own colours, and the profile that they are in."""
    turn = prepare(image) if orientation is None else orientation
    stored = decode(image, again)
    # L*a*b* is in sRGB by now: a profile that lies beside it is not of these values.
    profile = None if image.mode == "LAB" else colour_profile(image, path, stored.space)
    return stored.turned(turn), profile


def _to_srgb(stored: Stored, data: bytes | None) -> Pixels:
    """(H, W, C) in sRGB, of the type that is stored; grey keeps one channel."""
    profile = profile_of(data, stored.space)
    if profile is not None:
        return profile.to_srgb(stored.values)
    if stored.space == "cmyk":
        return np.array(Image.fromarray(stored.values, "CMYK").convert("RGB"))
    return stored.values


def _on_white(srgb: Pixels, alpha: Pixels | None) -> ImageArray:
    colours, share = _high_bytes(srgb), None if alpha is None else _high_bytes(alpha)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    if share is None:
        return colours
    rgba = Image.fromarray(np.dstack([colours, share]))
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, rgba).convert("RGB"), dtype=np.uint8)


def _high_bytes(values: Pixels) -> NDArray[np.uint8]:
    return (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values.astype(np.uint8)


def _left_out(image: Image.Image, *, pictures: bool = False) -> tuple[str, ...]:
    """What of an open picture is not read.

    Args:
        image: the picture.
        pictures: also a phone's second pictures, such as gain and depth maps (MPO): they are
            missed where a photograph is written again, and not where it is only looked at.
    """
    what = {"TIFF": "pages", "MPO": "pictures"}.get(str(image.format), "frames")
    if what == "pictures" and not pictures:
        return ()
    count = int(getattr(image, "n_frames", 1))
    notes = () if count <= 1 else (f"it holds {count} {what}, of which the first is read",)
    if pictures and image.format == "HEIF" and (maps := _maps_of(image)):
        notes += (f"it holds {counted(maps, 'map')} of gain or depth beside its picture, not kept",)
    return notes


def _maps_of(image: Image.Image) -> int:
    """How many further pictures a HEIC file has for its own, as phones write them."""
    further: Any = image.info.get("aux") or {}
    depths: Any = image.info.get("depth_images") or ()
    return sum(len(one) for one in further.values()) + len(depths)


def _in_spite_of_its_name(image: Image.Image, path: Path) -> tuple[str, ...]:
    """A note where the name's ending means another format than the file's."""
    named = Image.registered_extensions().get(path.suffix.lower())
    # A phone's JPEG with several pictures is an MPO, whatever it is called.
    found = "JPEG" if image.format == "MPO" else image.format
    return () if named in (None, found) else (f"it is a {found} file, in spite of its name",)


def _cannot_be_known(path: Path, problem: Exception) -> DataError:
    if isinstance(problem, HighDynamicRange):
        return DataError(
            f"image {path} is of high dynamic range, which is not read",
            got=str(problem),
            expected="values from black to white",
            remedy="export it in standard range, such as sRGB or Display P3",
        )
    return DataError(
        f"image {path} does not tell which value is white",
        got=str(problem),
        expected="8 or 16-bit integers, or floats in [0, 1]",
        remedy="divide its values by their white, such as 255 or 65535, and save it again",
    )


def _bits_of_tiff(image: Image.Image) -> int:
    bits = getattr(image, "tag_v2", {}).get(_BITS_TAG) if image.format == "TIFF" else None
    return max(bits) if isinstance(bits, tuple) and bits else 8


def _dpi(value: Any, turned: bool) -> tuple[float, float] | None:
    try:
        across, down = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 < across < 1e5 and 1 < down < 1e5):  # 1 is what Pillow says where a TIFF is silent
        return None
    return (down, across) if turned else (across, down)


_DIGEST_BYTES = 16


def pixel_digest(image: ImageArray) -> str:
    """Identify pixels: blake2b over the shape and the bytes, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(",".join(map(str, image.shape)).encode() + b";")
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class FileSource:
    """The pixels of an image file; a crop decodes the whole file (see `mmfe_cache.packing`)."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, from the header."""
        return read_size(self.path)

    def read(self) -> ImageArray:
        """The whole image, (H, W, 3) uint8."""
        return read_rgb8(self.path)

    def read_crop(self, top: int, left: int, height: int, width: int) -> ImageArray:
        """The window that starts at (top, left), (height, width, 3) uint8."""
        return crop(self.read(), top, left, height, width, self.name)


def crop(
    image: ImageArray, top: int, left: int, height: int, width: int, name: str = "image"
) -> ImageArray:
    """Cut a window out of ``image``, as its own array.

    Raises:
        DataError: the window does not lie inside the image.
    """
    check_crop(name, image.shape[:2], top, left, height, width)
    return image[top : top + height, left : left + width].copy()


def check_crop(
    name: str, size: tuple[int, ...], top: int, left: int, height: int, width: int
) -> None:
    """Refuse a window that does not lie inside the image ``name`` of (height, width) ``size``.

    Raises:
        DataError: it does not.
    """
    if min(top, left) < 0 or top + height > size[0] or left + width > size[1]:
        raise DataError(
            f"the crop does not lie inside {name}",
            got=f"rows {top} to {top + height}, columns {left} to {left + width}",
            expected=f"inside {size[0]} rows and {size[1]} columns",
        )


def shrink(image: ImageArray, side: int) -> ImageArray:
    """``image`` with a longer side of at most ``side`` pixels (Lanczos); never enlarged."""
    longer = max(image.shape[:2])
    if longer <= side:
        return image
    height, width = (max(1, round(n * side / longer)) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
