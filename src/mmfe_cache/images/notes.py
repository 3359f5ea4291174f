"""What a picture file holds and a reading leaves out, a sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from mmfe_cache.io import counted

_BITS_TAG = 258


def left_out(image: Image.Image, *, pictures: bool = False) -> tuple[str, ...]:
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


def in_spite_of_its_name(image: Image.Image, path: Path) -> tuple[str, ...]:
    """A note where the name's ending means another format than the file's."""
    named = Image.registered_extensions().get(path.suffix.lower())
    # A phone's JPEG with several pictures is an MPO, whatever it is called.
    found = "JPEG" if image.format == "MPO" else image.format
    return () if named in (None, found) else (f"it is a {found} file, in spite of its name",)


def bits_of_tiff(image: Image.Image) -> int:
    """Bits a channel, the most of any; 8 of another file."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_TAG) if image.format == "TIFF" else None
    return max(bits) if isinstance(bits, tuple) and bits else 8
