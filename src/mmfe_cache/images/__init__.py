"""Image files: read as every viewer shows them, written with all that they had."""

from __future__ import annotations

from mmfe_cache.images.encoding import encode_photograph, write_png
from mmfe_cache.images.opening import IMAGE_SUFFIXES
from mmfe_cache.images.reading import (
    FileSource,
    check_crop,
    crop,
    pixel_digest,
    read_noted,
    read_notes,
    read_photograph,
    read_rgb8,
    read_size,
    shrink,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "FileSource",
    "check_crop",
    "crop",
    "encode_photograph",
    "pixel_digest",
    "read_noted",
    "read_notes",
    "read_photograph",
    "read_rgb8",
    "read_size",
    "shrink",
    "write_png",
]
