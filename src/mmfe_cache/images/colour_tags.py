"""Colours that a file tells by other means than an ICC profile.

PNG has gAMA, cHRM and cICP chunks, AVIF a ``colr`` box of code points (ITU-T H.273). Pillow reports
the first two and knows nothing of the others; viewers go by all of them.
"""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image

from mmfe_cache.images.profiles import make_profile

_D65 = (0.3127, 0.3290)

_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)

_PRIMARIES = {
    1: _SRGB,
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""H.273, table 2: white, red, green, blue."""

# Table 3. BT.709's camera curve stands for what screens do with it, which is sRGB's in practice.
_GAMMAS: dict[int, float | None] = {1: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None}
_HDR = {16: "PQ", 18: "HLG"}

_HEADER_BYTES = 1 << 20
"""Where an AVIF file's boxes are looked for; they precede the pixels."""


class HighDynamicRange(ValueError):  # noqa: N818 - it names the condition, as in the message
    """The picture's light goes beyond white, by PQ or HLG."""


def colour_profile(image: Image.Image, path: Path) -> bytes | None:
    """The ICC profile of an open picture: its own, or what its other tags stand for.

    PNG's order of precedence (third edition, 4.3): cICP, iCCP, sRGB, then gAMA with cHRM.

    Returns:
        A profile; None where the file says nothing, or sRGB.

    Raises:
        HighDynamicRange: its numbers are PQ or HLG.
    """
    embedded = image.info.get("icc_profile")
    if image.format == "PNG":
        points = _png_code_points(path)
        if points is not None:
            return _from_code_points(*points)
        if embedded or "srgb" in image.info:
            return embedded or None
        return _from_gamma(image)
    if image.format == "AVIF" and not embedded:
        points = _avif_code_points(path)
        return None if points is None else _from_code_points(*points)
    return embedded or None


def _from_gamma(image: Image.Image) -> bytes | None:
    gamma, chromaticities = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and chromaticities is None:
        return None
    points = _SRGB if chromaticities is None else chromaticities
    near = max(abs(a - b) for a, b in zip(points, _SRGB, strict=True)) < 0.003
    # 1/2.2 beside sRGB's primaries is how sRGB is written (PNG, 11.3.2.5): not the pure power.
    curve = None if gamma is None or abs(gamma - 0.45455) < 0.005 else 1 / gamma if gamma else None
    return None if near and curve is None else make_profile(points, curve)


def _from_code_points(primaries: int, transfer: int) -> bytes | None:
    if transfer in _HDR:
        raise HighDynamicRange(f"light beyond white, by {_HDR[transfer]}")
    points, gamma = _PRIMARIES.get(primaries, _SRGB), _GAMMAS.get(transfer)
    return None if points is _SRGB and gamma is None else make_profile(points, gamma)


def _png_code_points(path: Path) -> tuple[int, int] | None:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                return None
            if name == b"cICP" and len(points := file.read(4)) == 4:
                return points[0], points[1]
            file.seek(length + 4, 1)
    return None


def _avif_code_points(path: Path) -> tuple[int, int] | None:
    """The first ``colr`` box of type ``nclx`` (ISO/IEC 23008-12, 6.5.5)."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    at = header.find(b"colrnclx")
    if at < 0 or at + 12 > len(header):
        return None
    primaries, transfer = struct.unpack_from(">HH", header, at + 8)
    return primaries, transfer
