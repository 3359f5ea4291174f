"""Pixels in memory and their files: digests, crops, and the source that a sample reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfe_cache.errors import DataError
from mmfe_cache.images.reading import read_rgb8, read_size
from mmfe_cache.samples import ImageArray

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
    if min(top, left) < 0 or top + height > image.shape[0] or left + width > image.shape[1]:
        raise DataError(
            f"the crop does not lie inside {name}",
            got=f"rows {top} to {top + height}, columns {left} to {left + width}",
            expected=f"inside {image.shape[0]} rows and {image.shape[1]} columns",
        )
    return image[top : top + height, left : left + width].copy()
