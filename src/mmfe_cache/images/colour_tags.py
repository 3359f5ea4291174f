"""Which colours a file's numbers mean where it bears no ICC profile, and how deep they are.

PNG has gAMA, cHRM and cICP chunks, AVIF a ``colr`` box of code points (ITU-T H.273). Pillow reports
the first two and knows nothing of the others; viewers go by all of them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmfe_cache.images.profiles import Floats, Space

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


def colour_profile(image: Image.Image, path: Path, space: Space) -> bytes | None:
    """The ICC profile of an open picture: its own, or what its other tags stand for.

    PNG's order of precedence (third edition, 4.3): cICP, iCCP, sRGB, then gAMA with cHRM.

    Args:
        image: the picture.
        path: its file.
        space: what its channels are; the profile that other tags stand for is made for them.

    Returns:
        A profile; None where the file says nothing, or sRGB.

    Raises:
        HighDynamicRange: its numbers are PQ or HLG.
    """
    embedded = image.info.get("icc_profile")
    if image.format == "PNG":
        points = _png_code_points(path)
        if points is not None:
            return _from_code_points(*points, space)
        if embedded or "srgb" in image.info:
            return embedded or None
        return _from_gamma(image, space)
    if image.format in ("AVIF", "HEIF") and not embedded:
        points = _avif_code_points(path) if image.format == "AVIF" else _heif_code_points(image)
        return None if points is None else _from_code_points(*points, space)
    return embedded or None


def _from_gamma(image: Image.Image, space: Space) -> bytes | None:
    gamma, chromaticities = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and chromaticities is None:
        return None
    points = _SRGB if chromaticities is None else chromaticities
    near = max(abs(a - b) for a, b in zip(points, _SRGB, strict=True)) < 0.003
    # 1/2.2 beside sRGB's primaries is how sRGB is written (PNG, 11.3.2.5): not the pure power.
    curve = None if gamma is None or abs(gamma - 0.45455) < 0.005 else 1 / gamma if gamma else None
    return None if near and curve is None else _made(points, curve, space)


def _from_code_points(primaries: int, transfer: int, space: Space) -> bytes | None:
    if transfer in _HDR:
        raise HighDynamicRange(f"light beyond white, by {_HDR[transfer]}")
    points, gamma = _PRIMARIES.get(primaries, _SRGB), _GAMMAS.get(transfer)
    return None if points is _SRGB and gamma is None else _made(points, gamma, space)


def _made(points: Sequence[float], gamma: float | None, space: Space) -> bytes | None:
    if space != "grey":
        return make_profile(points, gamma)
    return None if gamma is None else make_grey_profile(gamma)  # a grey is one in all primaries


def _png_code_points(path: Path) -> tuple[int, int] | None:
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                return None
            after = file.tell() + length + 4
            block = file.read(8) if name == b"cICP" and length == 4 else b""
            # A broken chunk counts as none, as every other of a PNG.
            if block and zlib.crc32(name + block[:4]) == int.from_bytes(block[4:], "big"):
                return block[0], block[1]
            file.seek(after)
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


def _heif_code_points(image: Image.Image) -> tuple[int, int] | None:
    """The same box of a HEIC file's picture, as pillow-heif tells it."""
    found: Any = image.info.get("nclx_profile")
    try:
        return int(found["color_primaries"]), int(found["transfer_characteristics"])
    except (KeyError, TypeError, ValueError):
        return None


def coded_bits(path: Path) -> int:
    """Bits a channel of an AVIF or HEIC file: 8, 10 or 12, by its decoders' configurations.

    AV1 in ISOBMFF, 2.3.3, and ISO/IEC 14496-15, 8.3.2.1; Pillow gives 8 of them and says nothing.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    av1 = [header[found.end() + 2] for found in re.finditer(rb"av1C(?=\x81..)", header, re.DOTALL)]
    hevc = re.finditer(rb"hvcC(?=\x01.{17})", header, re.DOTALL)
    bits = [8, *(8 + (header[found.end() + 17] & 7) for found in hevc)]
    bits += [(12 if flags & 0x20 else 10) for flags in av1 if flags & 0x40]
    return max(bits)


def make_profile(chromaticities: Sequence[float], gamma: float | None) -> bytes | None:
    """Build the ICC profile that a PNG's gAMA and cHRM, or a code point of H.273, stand for.

    Args:
        chromaticities: x and y of white, red, green and blue.
        gamma: the exponent that gives linear light; None for sRGB's own curve.

    Returns:
        A version 2 profile; None where the primaries span no gamut.
    """
    points = np.array(chromaticities, dtype=float).reshape(4, 2)
    if not np.isfinite(points).all() or (points[:, 1] <= 0).any():
        return None
    if gamma is not None and not 0.01 < gamma < 100:
        return None
    xyz = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)], axis=1) / points[:, 1:]
    if abs(np.linalg.det(xyz[1:])) < 1e-6:
        return None
    primaries = xyz[1:].T * np.linalg.solve(xyz[1:].T, xyz[0])
    columns = (_bradford(xyz[0]) @ primaries).T
    if gamma is None:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(numbers)
    else:
        curve = _power(gamma)
    tags = {
        **_described(),
        **{
            f"{channel}XYZ".encode(): b"XYZ \0\0\0\0" + _fixed(column)
            for channel, column in zip("rgb", columns, strict=True)
        },
        **{f"{channel}TRC".encode(): curve for channel in "rgb"},
    }
    return _assemble(tags, b"RGB ")


def make_grey_profile(gamma: float) -> bytes | None:
    """Build the ICC profile of a grey picture, as `make_profile` does of a coloured one.

    Returns:
        A version 2 profile; None for an exponent that no picture has.
    """
    if not 0.01 < gamma < 100:
        return None
    return _assemble({**_described(), b"kTRC": _power(gamma)}, b"GRAY")


def _power(gamma: float) -> bytes:
    """A curve of one exponent; ICC holds it in 256ths."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _described() -> dict[bytes, bytes]:
    """The tags that every profile has."""
    text = b"from the file\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    return {
        b"desc": description + bytes(-len(description) % 4),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50),
    }


_D50 = (0.9642, 1.0, 0.8249)

_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _bradford(white: Floats) -> Floats:
    """(3, 3) adapting colours under ``white`` to D50, the profiles' own white."""
    scale = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD


def _assemble(tags: dict[bytes, bytes], space: bytes) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    # Version 4.2 where the curve is parametric: version 2 has no such type.
    version = 0x04200000 if b"para" in body else 0x02400000
    header = struct.pack(
        ">I4sI4s4s4s6H4s", start + len(body), b"mmfe", version, b"mntr", space, b"XYZ ",
        2026, 1, 1, 0, 0, 0, b"acsp",
    )  # fmt: skip
    header = header.ljust(68, b"\0") + _fixed(_D50)
    return header.ljust(128, b"\0") + table + body


def _fixed(numbers: Sequence[float] | Floats) -> bytes:
    """S15Fixed16 numbers."""
    return b"".join(struct.pack(">i", round(float(number) * 65536)) for number in numbers)
