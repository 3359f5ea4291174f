"""Views: the deterministic renditions of a degraded image that a guide sees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from mmfe_cache.errors import UsageError
from mmfe_cache.samples import ImageArray

Family = Literal["whole", "crop", "native"]

MAX_RESOLUTION = 4096
"""The largest r of ``whole@r`` and ``crop@r``, in pixels."""

MAX_CROPS = 4096
"""How many fixed crops ``crop@r#k`` distinguishes."""

_PATTERN = re.compile(r"(whole|crop)@(\d{1,5})(?:#(\d{1,5}))?")

# The R2 sequence (M. Roberts, 2018): the two-dimensional golden ratio. Its first K points are
# spread evenly for every K, so a build may add crops later and none moves.
_PLASTIC = 1.324717957244746
_STEPS = (1 / _PLASTIC, 1 / _PLASTIC**2)


@dataclass(frozen=True, slots=True)
class View:
    """One rendition, named as in ``--views whole@128,crop@128#3,native``.

    Attributes:
        family: ``"whole"`` (the whole image resized to r × r), ``"crop"`` (r × r pixels at
            native scale) or ``"native"`` (the whole image, under the guide's own pixel budget).
        resolution: r in pixels; None for ``native``.
        index: k, which of the fixed crops; None for the centre crop and the other families.
    """

    family: Family
    resolution: int | None = None
    index: int | None = None

    @classmethod
    def parse(cls, name: str) -> View:
        """Read a view's name: ``whole@r``, ``crop@r``, ``crop@r#k`` or ``native``.

        Raises:
            UsageError: it is none of these, or r or k is out of range.
        """
        text = name.strip()
        if text == "native":
            return cls("native")
        match = _PATTERN.fullmatch(text)
        expected = "whole@r, crop@r, crop@r#k (such as whole@128 or crop@128#3) or native"
        if match is None:
            raise UsageError("unknown view", got=repr(name), expected=expected)
        resolution = int(match[2])
        if not 1 <= resolution <= MAX_RESOLUTION:
            raise UsageError(
                "a view's resolution is out of range",
                got=repr(name),
                expected=f"1 to {MAX_RESOLUTION} pixels",
            )
        if match[1] == "whole":
            if match[3] is not None:
                raise UsageError("only crops are numbered", got=repr(name), expected=expected)
            return cls("whole", resolution)
        index = None if match[3] is None else int(match[3])
        if index is not None and index >= MAX_CROPS:
            raise UsageError(
                "a crop's number is out of range", got=repr(name), expected=f"0 to {MAX_CROPS - 1}"
            )
        return cls("crop", resolution, index)

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        if self.resolution is None:
            return self.family
        number = "" if self.index is None else f"#{self.index}"
        return f"{self.family}@{self.resolution}{number}"

    @property
    def group(self) -> str:
        """The name of its group in a store, safe as a file name: ``crop-128-3``."""
        return group_name(self.name)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The window of the image that is seen, (top, left, height, width) in pixels.

        Training crops the network's input by the same box where guide and network must see
        the same pixels. An image smaller than r gives a box that stops at its border.
        """
        if self.family != "crop" or self.resolution is None:
            return 0, 0, height, width
        rows, columns = min(self.resolution, height), min(self.resolution, width)
        down, across = self._place()
        return round(down * (height - rows)), round(across * (width - columns)), rows, columns

    def render(self, image: ImageArray) -> ImageArray:
        """Make this view of ``image`` (H, W, 3) uint8; always the same bytes for the same bytes.

        Returns:
            (r, r, 3) uint8 for ``whole@r`` and ``crop@r``, ``image`` itself for ``native``.
            A crop of an image smaller than r is completed by mirroring at its border.
        """
        if self.family == "native" or self.resolution is None:
            return image
        side = self.resolution
        if self.family == "whole":
            if image.shape[:2] == (side, side):
                return image
            # Pillow widens its bicubic kernel when it shrinks: that is the antialiasing.
            picture = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
            return np.asarray(picture)
        top, left, rows, columns = self.box(*image.shape[:2])
        window = image[top : top + rows, left : left + columns]
        return mirror_to(window, side, side)

    def _place(self) -> tuple[float, float]:
        """Where the crop lies, as fractions of the free play; number 0 is the centre too."""
        k = self.index or 0
        return (0.5 + k * _STEPS[0]) % 1.0, (0.5 + k * _STEPS[1]) % 1.0


def group_name(view: str) -> str:
    """The name of a view's folder in a store: ``crop-128-3`` for ``crop@128#3``."""
    return view.replace("@", "-").replace("#", "-")


def mirror_to(image: ImageArray, height: int, width: int) -> ImageArray:
    """Complete ``image`` to at least ``height`` × ``width`` by mirroring, however small it is."""
    rows, columns = max(0, height - image.shape[0]), max(0, width - image.shape[1])
    if not rows and not columns:
        return np.ascontiguousarray(image)
    before, aside = rows // 2, columns // 2
    # "symmetric" repeats the border pixel, so that it is defined for a single pixel as well.
    spread = ((before, rows - before), (aside, columns - aside), (0, 0))
    return np.pad(image, spread, mode="symmetric")
