"""Image files: read as every viewer shows them, written with all that they had."""

from __future__ import annotations

from mmfe_cache.images.encoding import (
    check_colours as check_colours,
    encode_photograph as encode_photograph,
    write_png as write_png,
)
from mmfe_cache.images.opening import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from mmfe_cache.images.reading import (
    FileSource as FileSource,
    check_crop as check_crop,
    crop as crop,
    pixel_digest as pixel_digest,
    read_noted as read_noted,
    read_notes as read_notes,
    read_photograph as read_photograph,
    read_rgb8 as read_rgb8,
    read_size as read_size,
    shrink as shrink,
)
