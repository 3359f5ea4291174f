"""Image files as (H, W, 3) uint8 RGB, read strictly and written atomically."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DataError
from .io import write_file
from .samples import ImageArray

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
"""File name endings, in lower case, that count as images."""

MAX_PIXELS = 170_000_000
"""Larger images are refused: a forged header must not exhaust the memory. Pillow's own limit is
a little higher."""

_DIGEST_BYTES = 16

_ORIENTATION = 0x0112
"""The EXIF tag."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""


def read_rgb8(path: Path | str) -> ImageArray:
    """Read an image file as the eye sees it, in 8-bit RGB.

    EXIF orientation is applied; grey and palette images become RGB; 16-bit values keep their
    high byte; transparency is laid on white; CMYK is converted.

    Args:
        path: the file.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the file is missing, truncated, no image, or larger than `MAX_PIXELS`.
    """
    with _opened(Path(path)) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        return _to_rgb8(image if turn is None else image.transpose(turn))


@contextmanager
def _opened(path: Path) -> Generator[Image.Image, None, None]:
    """Open an image file of an allowed size; what goes wrong in the block names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(path, image)
                yield image
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist") from None
    except PermissionError:
        raise DataError(f"image {path} may not be read", remedy=f"chmod u+r '{path}'") from None
    except IsADirectoryError:
        raise DataError(f"image {path} is a folder") from None
    except Image.UnidentifiedImageError:
        raise DataError(
            f"{path} is not an image that can be read",
            got=_describe_bytes(path),
            expected=f"one of {', '.join(sorted(IMAGE_SUFFIXES))}",
        ) from None
    except Image.DecompressionBombError as problem:
        raise DataError(
            f"image {path} is too large",
            got=str(problem),
            expected=f"at most {MAX_PIXELS} pixels",
        ) from problem
    except (OSError, SyntaxError, ValueError, EOFError) as problem:
        raise DataError(
            f"image {path} cannot be decoded",
            got=_describe(path, problem),
            expected="a whole image file",
            remedy="copy or download the file again",
        ) from problem


def _check_size(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"image {path} is too large",
            got=f"{width}x{height} pixels",
            expected=f"at most {MAX_PIXELS} pixels",
        )


def _describe_bytes(path: Path) -> str:
    try:
        return f"{path.stat().st_size} bytes"
    except OSError as problem:
        return str(problem)


def _describe(path: Path, problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror  # the system could not open it; there are no bytes to speak of
    return f"{_describe_bytes(path)}: {problem}"


def _to_rgb8(image: Image.Image) -> ImageArray:
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return np.repeat(_grey16_to_8(image)[:, :, None], 3, axis=2)
    if image.mode in {"LA", "PA", "RGBA", "RGBa", "La"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, from what precedes the pixels."""
    if image.format != "PNG":
        return int(image.getexif().get(_ORIENTATION, 1))
    # Pillow decodes a whole PNG to look for EXIF data behind the pixels; reading a size must not.
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return int(exif.get(_ORIENTATION, 1))


def _grey16_to_8(image: Image.Image) -> ImageArray:
    # Pillow clips when it converts "I;16" to "L"; the high byte is what 8 bits of it mean.
    values = np.asarray(image)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("the image holds values that are not finite")
        values = values * 255 if float(values.max(initial=0)) <= 1 else values
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if int(values.max(initial=0)) <= 255 and image.mode == "I":
        return np.clip(values, 0, 255).astype(np.uint8)
    return (np.clip(values, 0, 65535).astype(np.uint32) >> 8).astype(np.uint8)


def read_size(path: Path | str) -> tuple[int, int]:
    """(height, width) in pixels from the header, EXIF orientation applied.

    Raises:
        DataError: the file is missing, no image, or larger than `MAX_PIXELS`.
    """
    with _opened(Path(path)) as image:
        width, height = image.size
        orientation = _orientation(image)
    return (width, height) if orientation >= 5 else (height, width)


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
    if min(top, left) < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise DataError(
            f"the crop does not lie inside {name}",
            got=f"rows {top} to {top + height}, columns {left} to {left + width}",
            expected=f"inside {image.shape[0]} rows and {image.shape[1]} columns",
        )
    return image[top : top + height, left : left + width].copy()
