"""A folder of what users really have: each bad file gets one clear line, and the rest goes on."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.errors import PictureWarning
from mmfe_cache.images import opening
from mmfe_cli.app import run
from mmfe_restore.inference import RestoreReport
from mmfe_restore.inference.jobs import plan

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def png_of_size(side: int) -> bytes:
    """A PNG whose header promises a square of this side, and whose pixels are not there."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inputs = tmp_path / "in"
    inputs.mkdir()
    picture = Image.fromarray(NOISE)
    for name, options in (("png", {}), ("jpg", {}), ("webp", {"lossless": True}), ("tif", {})):
        path = inputs / f"half.{name}"
        picture.save(path, **options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        path.rename(inputs / f"half_{name}.{name}")
    (inputs / "empty.png").write_bytes(b"")
    (inputs / "text.jpg").write_text("hello")
    (inputs / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (inputs / "bomb.png").write_bytes(png_of_size(60_000))
    (inputs / "large.png").write_bytes(png_of_size(13_100))
    picture.save(inputs / "lies.png", format="JPEG", quality=100, subsampling=0)
    picture.convert("CMYK").save(inputs / "cmyk.jpg")
    picture.convert("P").save(inputs / "palette.png")
    frames = {"save_all": True, "append_images": [picture.rotate(180)], "duration": 100}
    picture.save(inputs / "moving.png", **frames)
    picture.save(inputs / "moving.webp", lossless=True, **frames)
    picture.save(inputs / "moving.gif", **frames)
    Image.fromarray(np.zeros((2, 65_000, 3), np.uint8)).save(inputs / "wide.png")
    (inputs / "notes.txt").write_text("mine")
    (inputs / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    picture.save(inputs / "good.png")
    return inputs


WRONG = {
    "half_png.png": "truncated",
    "half_jpg.jpg": "truncated",
    "half_tif.tif": "truncated",
    "half_webp.webp": "copy or download the file again",
    "empty.png": "not an image that can be read: 0 bytes",
    "text.jpg": "not an image that can be read: 5 bytes",
    "bomb.png": "3,600,000,000 pixels, expected at most 170,000,000 pixels; if you trust the file, "
    "raise the limit: MMFE_MAX_PIXELS=3600000000",
    "large.png": "13100x13100 pixels, expected at most 170,000,000 pixels; if you trust the file, "
    "raise the limit: MMFE_MAX_PIXELS=171610000",
}
"""Files that are not restored, and what the line says."""

LEFT_OUT = {
    "phone.heic": "pip install pillow-heif",
    "moving.gif": ".gif is not read; convert it to PNG or TIFF",
    "notes.txt": "not an image",
    "film.mp4": "films are not restored",
}

NOTED = {
    "lies.png": "it is a JPEG file, in spite of its name",
    "cmyk.jpg": "it is CMYK, and comes back as RGB",
    "palette.png": "it has a palette, and comes back as RGB",
    "moving.png": "it holds 2 frames, of which the first is read",
    "moving.webp": "it holds 2 frames, of which the first is read",
}
"""Files that are restored, and the line about what changes."""


def test_each_bad_file_gets_one_line_and_the_folder_goes_on(
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(opening, "has_heic", lambda: False)
    arguments = ["restore", str(folder), "-o", str(tmp_path / "out"), "--json"]
    assert run([*arguments, "--checkpoint", str(model), "--no-guide"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    for name, words in (WRONG | LEFT_OUT | NOTED).items():
        about = [line for line in lines if name in line]
        assert len(about) == 1, about
        assert about[0].startswith("warning: ")
        assert words in about[0], about[0]
    assert not [line for line in lines if "good.png" in line or "wide.png" in line]

    found = json.loads(captured.out)
    restored = {Path(one["input"]).name for one in found["restored"]}
    assert restored == {*NOTED, "good.png", "wide.png"}
    assert {Path(one["input"]).name for one in found["failed"]} == set(WRONG)
    assert {Path(one["path"]).name for one in found["left_out"]} == set(LEFT_OUT)
    assert {path.name for path in (tmp_path / "out").iterdir()} == restored
    with Image.open(tmp_path / "out" / "wide.png") as wide:
        assert wide.size == (65_000, 2)
    with Image.open(tmp_path / "out" / "lies.png") as lies:
        assert lies.format == "PNG"


def test_inspect_says_the_same(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setattr(opening, "has_heic", lambda: False)
    (folder / "wide.png").unlink()
    (folder / ".hidden").mkdir()
    (folder / "round").symlink_to(folder)
    assert run(["inspect", str(folder), "--json"]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    pages = {name: words for name, words in NOTED.items() if "frames" in words}
    for name, words in (WRONG | LEFT_OUT | pages).items():
        about = [line for line in lines if name in line]
        assert len(about) == 1 and words in about[0], about
        assert about[0].startswith("warning: ")
    found = json.loads(captured.out)
    seen = {Path(one["input"]).name for one in found["seen"]}
    assert seen == {*NOTED, "good.png"}
    assert {Path(one["input"]).name for one in found["failed"]} == set(WRONG)
    assert not [one for one in recwarn if issubclass(one.category, PictureWarning)]
    restored = RestoreReport((), (), left_out=plan([folder], tmp_path / "out").left_out)
    assert found["left_out"] == restored.to_json()["left_out"]
    reasons = {Path(one["path"]).name: one["reason"] for one in found["left_out"]}
    assert reasons[".hidden"] == "hidden"
    assert set(reasons) == {*LEFT_OUT, ".hidden", "round"}


def test_inspect_of_a_folder_without_photographs_says_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(["inspect", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"there is no photograph in {tmp_path}" in message
    assert "notes.txt: not an image" in message


def test_a_raised_limit_admits_what_was_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(NOISE).save(tmp_path / "in.png")
    arguments = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out")]
    arguments += ["--checkpoint", str(model), "--no-guide"]
    monkeypatch.setenv("MMFE_MAX_PIXELS", "2000")
    assert run(arguments) == 1
    said = capsys.readouterr().err
    assert "60x40 pixels, expected at most 2,000 pixels" in said
    monkeypatch.setenv("MMFE_MAX_PIXELS", said.rpartition("MMFE_MAX_PIXELS=")[2].strip())
    assert run(arguments) == 0


def test_a_full_disk_leaves_no_half_file(model: Path, tmp_path: Path) -> None:
    """A real process that may write no file of more than 4,000 bytes."""
    (tmp_path / "in").mkdir()
    Image.fromarray(NOISE).save(tmp_path / "in" / "a.png")  # 7,200 bytes of noise
    Image.fromarray(NOISE[:8, :8]).save(tmp_path / "in" / "b.png")
    command = [sys.executable, "-m", "mmfe_cli", "restore", "in", "-o", "out"]
    done = subprocess.run(
        [*command, "--checkpoint", str(model), "--no-guide"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
        check=False,
    )
    assert done.returncode == 1
    about = [line for line in done.stderr.splitlines() if "a.png" in line]
    assert len(about) == 1, done.stderr
    assert "no space left to write out/a.png" in about[0] and "free some space" in about[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    assert done.stdout.splitlines() == ["out/b.png"]
