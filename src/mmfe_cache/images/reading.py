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
from mmfe_cache.images.bare import Bare, bare_copies
from mmfe_cache.images.colour_tags import HighDynamicRange, coded_bits, colour_profile
from mmfe_cache.images.decoding import (
    Stored,
    UnknownRange,
    decode,
    develop,
    prepare,
    raw_exif,
)
from mmfe_cache.images.metadata import Captions, captions_of, exif_of, upright
from mmfe_cache.images.notes import bits_of_tiff, in_spite_of_its_name, left_out
from mmfe_cache.images.opening import (
    RAW_SUFFIXES,
    extra_missing,
    is_lossless_webp,
    opened,
)
from mmfe_cache.images.profiles import Pixels, profile_of
from mmfe_cache.images.xmp import beyond_xmp, upright_xmp
from mmfe_cache.samples import ImageArray

_Result = TypeVar("_Result")

_XMP_TAG = 700


@dataclass(frozen=True)
class Photograph:
    """One picture file, whole: its pixels, and what a restored copy is to keep.

    Attributes:
        stored: upright, in the file's own colours.
        srgb: (H, W, 3) uint8 or uint16: upright, in sRGB, transparency left aside.
        format: Pillow's name of the format, or ``RAW``.
        profile: the ICC profile that ``stored`` is in; None for sRGB.
        exif: the EXIF block, its orientation reset.
        xmp: the XMP packet, its orientation reset, without thumbnails.
        dpi: pixels an inch, across and down.
        captions: IPTC, comments and texts.
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
    values keep their high byte; floats are in [0, 1]. Broken metadata counts as none, with a
    warning where it tells colours or orientation. Of several pages or frames the first is read,
    with a warning.

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
        image: Image.Image, again: Callable[[], Image.Image], bare: Bare | None
    ) -> tuple[ImageArray, tuple[str, ...]]:
        notes = left_out(image) + (bare.notes(shown=True) if bare else ())
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

    def work(
        image: Image.Image, again: Callable[[], Image.Image], bare: Bare | None
    ) -> tuple[str, ...]:
        del again
        return left_out(image) + (bare.notes(shown=True) if bare else ())

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

    def work(
        image: Image.Image, again: Callable[[], Image.Image], bare: Bare | None
    ) -> tuple[int, int]:
        del again, bare
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

    def work(image: Image.Image, again: Callable[[], Image.Image], bare: Bare | None) -> Photograph:
        # First: to count its pages Pillow opens the first anew, and exchanges its sides once more.
        notes = left_out(image, pictures=True) + in_spite_of_its_name(image, path)
        notes += bare.notes() if bare else ()
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
        elif stored.values.dtype == np.uint8 and (bits := bits_of_tiff(image)) > 8:
            notes += (f"it has {bits} bits a channel, of which 8 are read",)
        if stored.space == "cmyk":
            notes += ("it is CMYK, and comes back as RGB",)
            stored, profile = Stored(srgb, "rgb", stored.alpha), None
        xmp = _xmp_of(image)
        notes += beyond_xmp(xmp)
        return Photograph(
            stored,
            srgb if srgb.shape[2] == 3 else np.repeat(srgb, 3, axis=2),
            str(image.format),
            profile=profile,
            exif=upright(exif, orientation >= 5),
            xmp=upright_xmp(xmp, orientation >= 5),
            dpi=_dpi(image.info.get("dpi"), orientation >= 5),
            captions=captions_of(image, lambda: bare.content if bare else path.read_bytes()),
            lossless=lossless,
            notes=notes,
        )

    return _with_image(path, work)


def _with_image(
    path: Path, work: Callable[[Image.Image, Callable[[], Image.Image], Bare | None], _Result]
) -> _Result:
    """Do ``work`` on an open image, and again without the metadata that were in its way."""

    def once(bare: Bare | None) -> _Result:
        content = bare.content if bare else None
        others: list[Any] = []

        def again() -> Image.Image:
            other = opened(path, content)
            others.append(other)
            return other.__enter__()

        try:
            with opened(path, content) as image:
                try:
                    return work(image, again, bare)
                except (UnknownRange, HighDynamicRange) as problem:
                    raise _cannot_be_known(path, problem) from None
        finally:
            for other in others:
                other.__exit__(None, None, None)

    try:
        return once(None)
    except DataError:
        for bare in bare_copies(path):  # a decoder may have failed over such a block only
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


def _xmp_of(image: Image.Image) -> bytes | None:
    """The XMP packet as it lies there; a PNG's may follow its pixels."""
    xmp: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if image.format == "TIFF":
        xmp = getattr(image, "tag_v2", {}).get(_XMP_TAG)
    return xmp.encode() if isinstance(xmp, str) else xmp


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
