"""Opening image files: which ones, how large, with which decoders, and what to say when not."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, PngImagePlugin

from mmfe_cache.errors import DataError, MmfeError, UsageError
from mmfe_cache.io import look_there

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp",
        ".ppm", ".pgm", ".pbm", ".pnm", ".avif",
    }
)  # fmt: skip
"""File name endings, in lower case, that count as images."""

HEIC_SUFFIXES: frozenset[str] = frozenset({".heic", ".heif", ".hif"})
"""Read with the extra ``heic``; by ``mmfe restore`` only, since data sets are in no such format."""

_TIFF_STARTS = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
"""Of both byte orders, and of BigTIFF."""

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
"""ISO/IEC 23008-12, 10.2: what such a file says that it is."""

RAW_SUFFIXES: frozenset[str] = frozenset(
    {
        ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef",
        ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2",
        ".srf", ".srw", ".x3f",
    }
)  # fmt: skip
"""Cameras' raw files, read with the extra ``raw``; by ``mmfe restore`` only."""

VIDEO_SUFFIXES: frozenset[str] = frozenset(
    {".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm",
     ".wmv"}
)  # fmt: skip
"""Out of scope: each picture of a film would be restored by itself, and flicker."""

OTHER_SUFFIXES: frozenset[str] = frozenset(
    {".exr", ".gif", ".hdr", ".ico", ".j2k", ".jp2", ".jxl", ".pdf", ".psd", ".svg", ".tga"}
)
"""Pictures that are known and not taken: folders leave them out, and nothing is written as one."""

MAX_PIXELS = 170_000_000
"""Larger images are refused: a forged header must not exhaust the memory."""

MAX_PIXELS_VARIABLE = "MMFE_MAX_PIXELS"
"""The environment variable that takes the place of `MAX_PIXELS`."""

# Pillow warns at half of its limit. Once and for all, since a filter that is set for a while only
# (`warnings.catch_warnings`) is everyone's, and pictures are read in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# What one chunk of a PNG may unpack to. Pillow's 1 MiB refuses profiles made of large tables, and
# the texts of programs that make pictures; all texts of a file remain below MAX_TEXT_MEMORY.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)


def max_pixels() -> int:
    """`MAX_PIXELS`, or what the environment says instead.

    Raises:
        UsageError: the environment variable is not a positive integer.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "").strip()
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(
            f"{MAX_PIXELS_VARIABLE} is not a number of pixels",
            got=repr(text),
            expected=f"a positive integer, such as {2 * MAX_PIXELS}",
        )
    return int(text)


def extra_missing(suffix: str) -> str | None:
    """What to install so that files of this ending can be read; None where nothing is missing."""
    if suffix in HEIC_SUFFIXES and not has_heic():
        return "HEIC is read with pillow-heif (extra mmfe[heic]): pip install pillow-heif"
    if suffix in RAW_SUFFIXES and not has_raw():
        return "camera raw files are read with rawpy (extra mmfe[raw]): pip install rawpy"
    return None


@cache
def has_heic() -> bool:
    """Whether pillow-heif is there; registers it with Pillow."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@cache
def has_raw() -> bool:
    """Whether rawpy is there."""
    try:
        import rawpy
    except ImportError:
        return False
    return rawpy is not None


def why_not_read(path: Path) -> str | None:
    """Why a file of this name is not taken for a photograph; None where it is one.

    The one rule of what a folder holds, beyond what data sets read.
    """
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    if suffix in HEIC_SUFFIXES | RAW_SUFFIXES:
        return extra_missing(suffix)
    if suffix in VIDEO_SUFFIXES:
        return "films are not restored; extract pictures first, such as with ffmpeg"
    if suffix in OTHER_SUFFIXES:
        return f"{suffix} is not read; convert it to PNG or TIFF"
    return "not an image"


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Generator[Image.Image, None, None]:
    """Open an image file of an allowed size; what goes wrong in the block names the file.

    Args:
        path: the file.
        content: bytes to read in its stead.

    Raises:
        DataError: the file is missing, truncated, no image, or has too many pixels.
    """
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)  # the user asked for it
    with decoding(path):
        if path.suffix.lower() in HEIC_SUFFIXES:
            has_heic()
        with _open(path, content) as image:
            width, height = image.size
            if width * height > limit:
                raise too_large(path, f"{width}x{height} pixels", width * height)
            yield image


def _open(path: Path, content: bytes | None) -> Image.Image:
    try:
        return Image.open(path if content is None else io.BytesIO(content))
    except Image.UnidentifiedImageError:
        if not (_is_heic(path) and has_heic()):
            raise
    return Image.open(path if content is None else io.BytesIO(content))


def _is_heic(path: Path) -> bool:
    """Whether a file is HEIC, whatever its name: phones' pictures are often called .jpg."""
    start = _starts(path, 12)
    return start[4:8] == b"ftyp" and start[8:] in _HEIC_BRANDS


@contextmanager
def decoding(path: Path) -> Generator[None, None, None]:
    """Turn whatever a decoder raises into a `DataError` that names the file."""
    try:
        yield
    except MmfeError:
        raise
    except FileNotFoundError:
        raise not_there(path) from None
    except PermissionError:
        raise DataError(f"image {path} may not be read", remedy=f"chmod u+r '{path}'") from None
    except IsADirectoryError:
        raise DataError(f"image {path} is a folder", remedy="name a file in it") from None
    except Image.UnidentifiedImageError:
        raise _not_an_image(path) from None
    except Image.DecompressionBombError as problem:
        named = re.search(r"(\d+) pixels", str(problem))
        count = int(named[1]) if named else 2 * max_pixels()
        raise too_large(path, f"{count:,} pixels", count) from problem
    except MemoryError as problem:
        raise DataError(
            f"image {path} does not fit into the memory",
            remedy="end other programs, or take a smaller copy",
        ) from problem
    except Exception as problem:  # decoders raise anything: RuntimeError, NotImplementedError, ...
        raise DataError(
            f"image {path} cannot be decoded",
            got=_describe(path, problem),
            expected="a whole image file",
            remedy="copy or download the file again",
        ) from problem


def is_lossless_webp(path: Path) -> bool:
    """Whether a WebP file's (first) picture is; its profile, of any length, precedes it."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name in (b"VP8L", b"VP8 "):
                return name == b"VP8L"
            # A frame's own chunks follow its 16 bytes.
            file.seek(16 if name == b"ANMF" else length + length % 2, 1)
    return False


def not_there(path: Path) -> DataError:
    """The error of an image that does not exist."""
    return DataError(f"image {path} does not exist", remedy=look_there(path))


def too_large(path: Path, got: str, count: int) -> DataError:
    """The error of an image with more than `max_pixels`: the limit, and what would admit it."""
    return DataError(
        f"image {path} is too large",
        got=got,
        expected=f"at most {max_pixels():,} pixels",
        remedy=f"if you trust the file, raise the limit: {MAX_PIXELS_VARIABLE}={count}",
    )


def _not_an_image(path: Path) -> DataError:
    suffix = path.suffix.lower()
    remedy = extra_missing(suffix) or "if another program opens it, save it there as PNG"
    if _is_heic(path) and (missing := extra_missing(".heic")):
        remedy = missing
    elif suffix in VIDEO_SUFFIXES:
        remedy = why_not_read(path)
    elif suffix == ".avif" and ".avif" not in Image.registered_extensions():
        remedy = "this Pillow reads no AVIF: pip install -U Pillow"
    elif suffix in (".tif", ".tiff") and _starts(path) in _TIFF_STARTS:
        remedy = "it is a TIFF of a kind that is not read; save it as 8 or 16-bit RGB or grey"
    return DataError(
        f"{path} is not an image that can be read",
        got=_describe_bytes(path),
        expected="PNG, JPEG, TIFF, WebP, AVIF, BMP or PNM",
        remedy=remedy,
    )


def _starts(path: Path, count: int = 4) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def _describe_bytes(path: Path) -> str:
    try:
        return f"{path.stat().st_size} bytes"
    except OSError as problem:
        return str(problem)


def _describe(path: Path, problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror  # the system could not open it; there are no bytes to speak of
    return f"{_describe_bytes(path)}: {problem or type(problem).__name__}"
