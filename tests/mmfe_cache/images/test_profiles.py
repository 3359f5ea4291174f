"""Colours: ICC profiles and the other ways to tell them, beside LittleCMS and closed forms."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmfe_cache.images import pixel_digest, read_photograph, read_rgb8
from mmfe_cache.images.colour_tags import make_profile
from mmfe_cache.images.profiles import (
    MatrixProfile,
    decode_srgb,
    encode_srgb,
    profile_of,
    srgb_profile,
)

D65 = (0.3127, 0.3290)
SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PROFILES = {
    "p3": make_profile(P3, None),
    "adobe": make_profile(ADOBE, 563 / 256),
    "linear": make_profile(SRGB, 1.0),
}
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def by_lcms(image: np.ndarray, profile: bytes) -> np.ndarray:
    """The independent reading: LittleCMS on 8 bits."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    shown = ImageCms.profileToProfile(
        Image.fromarray(image), opened, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(shown).astype(int)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_applied_in_every_format(tmp_path: Path, suffix: str, name: str) -> None:
    profile, path = PROFILES[name], tmp_path / f"a.{suffix}"
    assert profile is not None
    flat = np.zeros((16, 16, 3), np.uint8) + np.array([200, 90, 60], np.uint8)
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0},
               "avif": {"quality": 100, "subsampling": "4:4:4"}}.get(suffix, {})  # fmt: skip
    Image.fromarray(flat).save(path, icc_profile=profile, **options)
    assert np.abs(read_rgb8(path) - by_lcms(flat, profile)).max() <= 3
    assert read_photograph(path).profile == profile


@pytest.mark.parametrize("name", PROFILES)
def test_our_matrices_agree_with_littlecms(name: str) -> None:
    profile = PROFILES[name]
    assert profile is not None
    parsed = MatrixProfile.parse(profile)
    assert parsed is not None
    ours = parsed.to_srgb(COLOURS.astype(np.float32) / 255) * 255
    assert np.abs(ours - by_lcms(COLOURS, profile)).max() <= 1.1
    # There and back, for colours inside sRGB.
    inside = (COLOURS.astype(np.float32) / 255) * 0.5 + 0.25
    back = parsed.to_srgb(parsed.from_srgb(inside))
    assert np.abs(back - inside).max() < 1e-3


def test_adobe_rgb_in_closed_form(tmp_path: Path) -> None:
    """The matrix from Adobe RGB (1998) to sRGB, by Lindbloom; its gamma is 563/256."""
    matrix = np.array([[1.3984, -0.3984, 0], [0, 1, 0], [0, -0.0429, 1.0429]])
    colours = np.array([[[128, 100, 90], [60, 160, 40], [200, 200, 200]]], np.uint8)
    linear = (colours / 255.0) ** (563 / 256)
    wanted = encode_srgb(np.clip(linear @ matrix.T, 0, 1)) * 255
    Image.fromarray(colours).save(tmp_path / "a.png", icc_profile=PROFILES["adobe"])
    assert np.abs(read_rgb8(tmp_path / "a.png") - wanted).max() <= 1.5


def test_makes_of_srgb_change_no_pixel(tmp_path: Path) -> None:
    """Digests, and caches with them, stay valid."""
    Image.fromarray(COLOURS).save(tmp_path / "plain.png")
    for number, profile in enumerate((srgb_profile(), make_profile(SRGB, None))):
        Image.fromarray(COLOURS).save(tmp_path / f"{number}.png", icc_profile=profile)
        read = read_rgb8(tmp_path / f"{number}.png")
        assert pixel_digest(read) == pixel_digest(read_rgb8(tmp_path / "plain.png"))
        assert pixel_digest(read) == pixel_digest(COLOURS)


@pytest.mark.parametrize("profile", [
    b"no profile",
    (PROFILES["p3"] or b"")[:200],
    bytes(128),
    (PROFILES["p3"] or b"").replace(b"RGB XYZ ", b"CMYKXYZ "),
    (PROFILES["p3"] or b"").replace(b"RGB XYZ ", b"GRAYXYZ "),
])  # fmt: skip
def test_broken_and_foreign_profiles_are_ignored(tmp_path: Path, profile: bytes) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(read_rgb8(tmp_path / "a.png"), COLOURS)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
@pytest.mark.parametrize(("kind", "numbers"), [(1, (2.4, 0, 0.05)), (2, (2.4, 0, 0.05, 0.1))])
def test_a_curve_that_begins_nowhere_makes_no_profile(
    tmp_path: Path, suffix: str, kind: int, numbers: tuple[float, ...]
) -> None:
    curve = b"para\0\0\0\0" + struct.pack(">HH", kind, 0)
    curve += b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)
    broken = srgb_profile()
    at = broken.index(b"para")
    broken = broken[:at] + curve + broken[at + len(curve) :]
    Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / f"a.{suffix}", icc_profile=broken)
    assert np.abs(read_rgb8(tmp_path / f"a.{suffix}").astype(int) - 90).max() <= 1


@pytest.mark.filterwarnings("error")
def test_a_falling_curve_is_read_without_a_warning() -> None:
    falling = b"para" + bytes(8) + struct.pack(">i", -65536)
    profile = srgb_profile()
    at = profile.index(b"para")
    profile_of(profile[:at] + falling + profile[at + len(falling) :], "rgb")


def test_sixteen_bits_are_converted_at_their_depth(tmp_path: Path) -> None:
    """Dark linear light: 8 bits of it would be a handful of steps."""
    profile = PROFILES["linear"]
    values = np.tile(np.arange(0, 2560, 20, dtype=np.uint16)[None, :], (4, 1))
    import tifffile

    deep = np.repeat(values[:, :, None], 3, axis=2)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", iccprofile=profile)
    wanted = encode_srgb(deep / 65535) * 65535
    found = read_photograph(tmp_path / "a.tif").srgb
    assert np.abs(found - wanted).max() <= 40  # primaries of 16 fractional bits
    assert len(np.unique(read_rgb8(tmp_path / "a.tif"))) > 40


def test_grey_profiles(tmp_path: Path) -> None:
    """A grey curve of gamma 1, made from an RGB profile's parts."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 256) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    table = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20)
    table += b"kTRC" + struct.pack(">II", 176, 16)
    head = struct.pack(">I4sI4s4s4s", 192, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    profile = head.ljust(128, b"\0") + table + white + curve
    ramp = np.arange(256, dtype=np.uint8)[None, :]
    wanted = encode_srgb(ramp / 255) * 255
    Image.fromarray(ramp).save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(read_rgb8(tmp_path / "a.png")[:, :, 1] - wanted).max() <= 1
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "b.png", icc_profile=profile)
    assert np.abs(read_photograph(tmp_path / "b.png").srgb[:, :, 1] / 257 - wanted).max() <= 1
    # An RGB profile that a conversion to grey left behind: its curve still holds.
    Image.fromarray(ramp).save(tmp_path / "c.png", icc_profile=PROFILES["linear"])
    assert np.abs(read_rgb8(tmp_path / "c.png")[:, :, 1] - wanted).max() <= 1


def with_chunks(path: Path, image: np.ndarray, *chunks: tuple[bytes, bytes]) -> Path:
    Image.fromarray(image).save(path)
    content, extra = path.read_bytes(), b""
    for name, data in chunks:
        extra += struct.pack(">I", len(data)) + name + data
        extra += struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content[:33] + extra + content[33:])
    return path


def chrm(points: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(100_000 * p) for p in points))


def test_png_tells_colours_without_a_profile(tmp_path: Path) -> None:
    path, linear = tmp_path / "a.png", encode_srgb(COLOURS / 255) * 255
    assert (
        np.abs(
            read_rgb8(with_chunks(path, COLOURS, (b"gAMA", struct.pack(">I", 100_000)))) - linear
        ).max()
        <= 1
    )
    usual = (b"gAMA", struct.pack(">I", 45_455))
    assert np.array_equal(read_rgb8(with_chunks(path, COLOURS, usual, chrm(SRGB))), COLOURS)
    srgb = (b"sRGB", b"\0")
    dark = (b"gAMA", struct.pack(">I", 100_000))
    assert np.array_equal(read_rgb8(with_chunks(path, COLOURS, srgb, dark)), COLOURS)
    p3 = by_lcms(COLOURS, PROFILES["p3"] or b"")
    for chunks in ((usual, chrm(P3)), ((b"cICP", bytes([12, 13, 0, 1])),)):
        assert np.abs(read_rgb8(with_chunks(path, COLOURS, *chunks)) - p3).max() <= 2
    senseless = (b"cHRM", bytes(32))
    assert np.array_equal(read_rgb8(with_chunks(path, COLOURS, usual, senseless)), COLOURS)


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused(tmp_path: Path, transfer: int) -> None:
    from mmfe_cache.errors import DataError

    path = with_chunks(tmp_path / "a.png", COLOURS, (b"cICP", bytes([9, transfer, 0, 1])))
    with pytest.raises(DataError, match="dynamic range"):
        read_rgb8(path)


def test_heic_tells_colours_without_a_profile(tmp_path: Path) -> None:
    from mmfe_cache.errors import DataError

    pytest.importorskip("pillow_heif").register_heif_opener()
    path, flat = tmp_path / "a.heic", np.zeros((64, 64, 3), np.uint8) + np.uint8([200, 60, 90])
    for primaries, transfer in ((12, 13), (9, 16), (9, 18)):
        Image.fromarray(flat).save(
            path, quality=100, chroma=444, color_primaries=primaries,
            transfer_characteristics=transfer, matrix_coefficients=1, full_range_flag=1,
        )  # fmt: skip
        if transfer == 13:
            assert np.abs(read_rgb8(path) - by_lcms(flat, PROFILES["p3"] or b"")).max() <= 4
            assert read_photograph(path).profile is not None
        else:
            with pytest.raises(DataError, match="dynamic range"):
                read_rgb8(path)


def test_the_profile_of_a_grey_png_is_one_of_greys(tmp_path: Path) -> None:
    """Others leave one of colours aside, and would show such a picture dark."""
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    dark, p3 = (b"gAMA", struct.pack(">I", 100_000)), (b"cICP", bytes([12, 13, 0, 1]))
    photograph = read_photograph(with_chunks(tmp_path / "a.png", ramp, dark))
    assert photograph.profile is not None
    assert np.abs(photograph.srgb - encode_srgb(ramp[:, :, None] / 255) * 255).max() <= 1
    opened = ImageCms.ImageCmsProfile(io.BytesIO(photograph.profile))
    assert opened.profile.xcolor_space.strip() == "GRAY"
    there = ImageCms.profileToProfile(
        Image.fromarray(ramp), opened, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert np.abs(np.asarray(there).astype(int) - photograph.srgb)[:, 16:].max() <= 2
    assert read_photograph(with_chunks(tmp_path / "b.png", ramp, p3)).profile is None


def test_cmyk_with_and_without_a_profile(tmp_path: Path) -> None:
    """Without one, as Pillow and the browsers: each colour is (1 - ink) (1 - black)."""
    inks = np.zeros((8, 8, 4), np.uint8) + np.array([30, 120, 60, 40], np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    wanted = (1 - inks[:, :, :3] / 255) * (1 - inks[:, :, 3:] / 255) * 255
    assert np.abs(read_rgb8(tmp_path / "a.tif") - wanted).max() <= 1
    photograph = read_photograph(tmp_path / "a.tif")
    assert "CMYK" in photograph.notes[0] and photograph.stored.space == "rgb"


def test_the_way_back_keeps_what_srgb_cannot_hold() -> None:
    for name in PROFILES:
        profile = profile_of(PROFILES[name], "rgb")
        assert profile is not None
        for stored in (COLOURS, COLOURS.astype(np.uint16) * 257):
            srgb = profile.to_srgb(stored)
            assert np.array_equal(profile.back(stored, srgb, srgb), stored), "an identity"
        # A change that sRGB can hold: back and forth again, it is seen in sRGB.
        muted = (COLOURS // 4 + 96).astype(np.uint8)
        before = profile.to_srgb(muted)
        after = (before.astype(int) + 20).clip(0, 255).astype(np.uint8)
        back = profile.back(muted, before, after)
        assert back is not None
        assert np.abs(profile.to_srgb(back).astype(int) - after).max() <= 2


def test_srgb_curves_are_inverse() -> None:
    values = np.linspace(0, 1, 1001)
    assert np.abs(encode_srgb(decode_srgb(values)) - values).max() < 1e-6
