"""ICC profiles: which numbers of a file mean which colours of sRGB, and the way back.

8-bit pictures are converted by LittleCMS (through Pillow), which viewers use too: relative
colorimetric with black point compensation. Pillow hands it no deeper pixels, and it cannot leave
8 bits for the way back, so profiles made of a matrix and curves (Adobe RGB, Display P3, ProPhoto,
linear light, grey gammas: nearly all of photography) are computed here as well.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Space = Literal["grey", "rgb", "cmyk", "lab"]
"""What the channels of a stored picture are."""

Pixels = NDArray[np.unsignedinteger[Any]]
"""(H, W, C) uint8 or uint16; white is the largest value of the type."""

Floats = NDArray[np.floating[Any]]

SRGB_TOLERANCE = 2
"""A profile whose colours are nowhere further from sRGB's, in 8-bit levels, counts as sRGB: the
many makes of the sRGB profile then leave every pixel, and every digest, as it is."""

_MODES: dict[Space, str] = {"grey": "L", "rgb": "RGB", "cmyk": "CMYK", "lab": "LAB"}

_XYZ_D50_TO_SRGB = np.linalg.inv(
    # sRGB's primaries adapted to D50 by Bradford, as in IEC 61966-2-1's ICC profiles.
    np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    )
)

_CURVE_SAMPLES = 65_536
"""Of an inverted curve: exact for every 16-bit value."""


class Profile:
    """One ICC profile, applied to one kind of picture.

    Args:
        data: the profile.
        space: of the picture that bears it.

    Attributes:
        is_srgb: applying it changes nothing that could be seen.

    Raises:
        ImageCms.PyCMSError: it cannot be read, or is not for such pictures.
    """

    def __init__(self, data: bytes, space: Space) -> None:
        opened = _open(data)
        colours: Any = opened.profile
        signature = str(colours.xcolor_space).strip().lower()
        own = {"gray": "grey"}.get(signature, signature)
        if own == space:
            self._mode = _MODES[space]
        elif space == "grey" and own == "rgb":
            self._mode = "RGB"  # conversions to grey leave such a profile behind: its curve counts
        else:
            raise ImageCms.PyCMSError(f"a profile of {signature} on a picture of {space}")
        self.space: Space = space
        self._profile = opened
        self._there = _transform(opened, _srgb(), self._mode, "RGB")
        self._matrix = MatrixProfile.parse(data) if space in ("grey", "rgb") else None
        self.is_srgb = space in ("grey", "rgb") and self._is_near_srgb()

    def _is_near_srgb(self) -> bool:
        if self.space == "grey":
            return int(np.abs(self._grey_table().astype(int) - np.arange(256)).max()) <= (
                SRGB_TOLERANCE
            )
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
        return int(np.abs(self._to_8(colours).astype(int) - colours).max()) <= SRGB_TOLERANCE

    def _grey_table(self) -> NDArray[np.uint8]:
        """What each 8-bit grey is in sRGB, (256,)."""
        ramp = np.arange(256, dtype=np.uint8)[None, :, None]
        if self._matrix is not None:  # LittleCMS samples such a curve too coarsely in the shadows
            return _quantised(self._matrix.to_srgb(_unit(ramp)), ramp).astype(np.uint8)[0, :, 0]
        return self._to_8(np.repeat(ramp, 3, axis=2) if self._mode == "RGB" else ramp)[0, :, 1]

    def _to_8(self, pixels: Pixels) -> NDArray[np.uint8]:
        shown = Image.fromarray(np.ascontiguousarray(_squeezed(pixels)), self._mode)
        return np.asarray(ImageCms.applyTransform(shown, self._there))

    def to_srgb(self, pixels: Pixels) -> Pixels:
        """Convert (H, W, C) to sRGB, in the type it has; grey stays one channel."""
        if self._matrix is not None and pixels.dtype == np.uint16:
            return _quantised(self._matrix.to_srgb(_unit(pixels)), pixels)
        if self.space == "grey":
            table = self._grey_table()
            if pixels.dtype == np.uint8:
                return table[pixels]
            deep = np.interp(pixels, np.arange(256) * 257.0, table * 257.0)
            return np.rint(deep).astype(np.uint16)
        if pixels.dtype == np.uint16:  # tables of colours: as deep as Pillow hands them over
            return self._to_8((pixels >> 8).astype(np.uint8)).astype(np.uint16) * 257
        return self._to_8(pixels)

    def back(self, stored: Pixels, before: Pixels, after: Pixels) -> Pixels | None:
        """Apply to a stored picture what was done to its rendition in sRGB.

        What changed between ``before`` and ``after`` is converted and added, so that colours that
        sRGB cannot hold survive, and an unchanged pixel comes back to the bit.

        Args:
            stored: (H, W, C) in the profile's own colours.
            before: (H, W, C) the same in sRGB.
            after: (H, W, C) restored, in sRGB.

        Returns:
            Like ``stored``; None where the profile only leads one way, as scanners' do.
        """
        if self._matrix is not None:
            change = self._matrix.from_srgb(_unit(after)) - self._matrix.from_srgb(_unit(before))
            return _quantised(_unit(stored) + change, stored)
        try:
            home = _transform(_srgb(), self._profile, "RGB", self._mode)
        except ImageCms.PyCMSError:
            return None

        def own(pixels: Pixels) -> Floats:
            eight = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
            colours = np.repeat(eight, 3, axis=2) if eight.shape[2] == 1 else eight
            shown = Image.fromarray(np.ascontiguousarray(colours), "RGB")
            found = np.asarray(ImageCms.applyTransform(shown, home))
            found = found[:, :, None] if found.ndim == 2 else found
            return _unit(found[:, :, : stored.shape[2]])

        return _quantised(_unit(stored) + own(after) - own(before), stored)


@lru_cache(maxsize=32)
def profile_of(data: bytes | None, space: Space) -> Profile | None:
    """The profile that tells the colours of a picture; None where it says nothing beyond sRGB.

    A profile that is broken, or made for another kind of picture, is ignored as viewers do.
    """
    if not data:
        return None
    try:
        profile = Profile(data, space)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ArithmeticError, struct.error):
        return None
    return None if profile.is_srgb else profile


@dataclass(frozen=True)
class MatrixProfile:
    """A profile of three primaries and a curve for each, or of one curve for grey.

    Attributes:
        matrix: (3, 3) from the profile's linear light to sRGB's; None for grey.
        curves: (65536,) linear light of evenly spaced values, one for each channel.
    """

    matrix: Floats | None
    curves: tuple[Floats, ...]

    @classmethod
    def parse(cls, data: bytes) -> MatrixProfile | None:
        """Read the tags (ICC.1:2022, 8.3 and 10); None where colours lie in tables instead."""
        try:
            tags = _tags(data)
        except struct.error:
            return None
        if "A2B0" in tags or data[20:24] != b"XYZ ":
            return None
        try:
            if "kTRC" in tags:
                return cls(None, (_curve(tags["kTRC"]),))
            columns = [_xyz(tags[f"{channel}XYZ"]) for channel in "rgb"]
            curves = tuple(_curve(tags[f"{channel}TRC"]) for channel in "rgb")
        except (KeyError, ValueError, struct.error):
            return None
        matrix = _XYZ_D50_TO_SRGB @ np.array(columns).T
        if abs(np.linalg.det(matrix)) < 1e-6 or any(np.ptp(curve) == 0 for curve in curves):
            return None
        return cls(matrix, curves)

    def to_srgb(self, unit: Floats) -> Floats:
        """(H, W, C) in [0, 1] to sRGB, clipped to [0, 1]; in rows, which bounds the memory."""
        result = np.empty_like(unit)
        for row in range(unit.shape[0]):
            linear = np.stack(
                [
                    _look_up(unit[row, :, channel], self._curve(channel))
                    for channel in range(unit.shape[2])
                ],
                axis=-1,
            )
            if self.matrix is not None and unit.shape[2] == 3:
                linear = linear @ self.matrix.T
            result[row] = encode_srgb(np.clip(linear, 0, 1))
        return result

    def from_srgb(self, unit: Floats) -> Floats:
        """(H, W, C) sRGB in [0, 1] to the profile's own values, clipped to [0, 1]."""
        result = np.empty_like(unit)
        inverse = None if self.matrix is None else np.linalg.inv(self.matrix)
        places = np.linspace(0, 1, _CURVE_SAMPLES)
        for row in range(unit.shape[0]):
            linear = decode_srgb(unit[row].astype(np.float64))
            if inverse is not None and unit.shape[2] == 3:
                linear = linear @ inverse.T
            for channel in range(unit.shape[2]):
                curve = self._curve(channel)
                result[row, :, channel] = np.interp(linear[:, channel], curve, places)
        return result

    def _curve(self, channel: int) -> Floats:
        return self.curves[min(channel, len(self.curves) - 1)]


def encode_srgb(linear: Floats) -> Floats:
    """IEC 61966-2-1: linear light in [0, 1] to sRGB's values."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def decode_srgb(values: Floats) -> Floats:
    """IEC 61966-2-1: sRGB's values in [0, 1] to linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_profile() -> bytes:
    """LittleCMS's sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _tags(data: bytes) -> dict[str, bytes]:
    count = min(struct.unpack_from(">I", data, 128)[0], 200)
    tags: dict[str, bytes] = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", data, 132 + 12 * index)
        tags[name.decode("latin-1")] = data[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> list[float]:
    return [number / 65536 for number in struct.unpack_from(">3i", tag, 8)]


_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}
"""How many numbers each type of parametric curve has."""


def _curve(tag: bytes) -> Floats:
    """Linear light of 65,536 evenly spaced values, rising."""
    x = np.linspace(0, 1, _CURVE_SAMPLES)
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        if count == 0:
            return x
        numbers = np.frombuffer(tag, ">u2", count, 12).astype(float)
        y = (
            x ** (numbers[0] / 256)
            if count == 1
            else np.interp(x, np.linspace(0, 1, count), numbers / 65535)
        )
    elif tag[:4] == b"para":
        kind = struct.unpack_from(">H", tag, 8)[0]
        if kind not in _PARAMETERS:
            raise ValueError(f"a parametric curve of type {kind}")
        given = [n / 65536 for n in struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)]
        y = _parametric(x, kind, given)
    else:
        raise ValueError(f"a curve of type {tag[:4]!r}")
    return np.maximum.accumulate(np.clip(y, 0, 1))  # np.interp needs it rising


@np.errstate(all="ignore")  # an infinite power is clipped
def _parametric(x: Floats, kind: int, given: list[float]) -> Floats:
    """A curve's values (ICC.1:2022, 10.18).

    Raises:
        ZeroDivisionError: it begins nowhere: the profile is broken.
    """
    g, a, b, c, d, e, f = (given + [0.0] * 7)[:7]
    if kind == 0:
        return x**g
    power = np.maximum(a * x + b, 0) ** g
    if kind == 1:
        return np.where(x >= -b / a, power, 0)
    if kind == 2:
        return np.where(x >= -b / a, power + c, c)
    return np.where(x >= d, power + e, c * x + f)


def _look_up(values: Floats, curve: Floats) -> Floats:
    return curve[np.rint(values * (_CURVE_SAMPLES - 1)).astype(np.int64)]


def _unit(pixels: Pixels) -> Floats:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _quantised(unit: Floats, like: Pixels) -> Pixels:
    white = np.iinfo(like.dtype).max
    return np.rint(np.clip(unit, 0, 1) * white).astype(like.dtype)


def _squeezed(pixels: Pixels) -> Pixels:
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _open(data: bytes) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(data))
    except OSError as problem:
        raise ImageCms.PyCMSError(problem) from problem


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _transform(source: Any, target: Any, mode: str, target_mode: str) -> Any:
    return ImageCms.buildTransform(
        source,
        target,
        mode,
        target_mode,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def lab_to_srgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """CIE L*a*b* as Pillow holds it, (H, W, 3) uint8, to sRGB."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    shown = Image.fromarray(np.ascontiguousarray(pixels), "LAB")
    return np.asarray(ImageCms.applyTransform(shown, _transform(lab, _srgb(), "LAB", "RGB")))
