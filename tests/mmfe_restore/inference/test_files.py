from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_restore import Restorer
from mmfe_restore.inference import restore_files, restore_image
from mmfe_restore.inference.tiles import starts
from mmfe_restore.recipes.schema import ModelConfig


@pytest.fixture
def restorer() -> Restorer:
    """An unguided network that starts as the identity, so that outputs are known."""
    off = {"encoder_guidance": "none", "decoder_guidance": "none", "experts": "none"}
    config = ModelConfig(width=8, num_blocks=(1, 1, 1, 1), identity_start=True, **off)
    return Restorer(config).eval()


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("tile", ["auto", 64])
def test_the_identity_gives_every_byte_back(restorer: Restorer, tile: str | int) -> None:
    image = photograph(83, 150)
    assert np.array_equal(restore_image(restorer, image[:, ::-1], tile=tile), image[:, ::-1])


def test_tiles_of_a_local_network_show_no_seam(restorer: Restorer) -> None:
    torch.nn.init.normal_(restorer.output.weight, std=0.02)
    image = photograph(96, 128) // 2 + 60
    whole = restore_image(restorer, image).astype(int)
    tiled = restore_image(restorer, image, tile=96, overlap=32).astype(int)
    assert np.abs(whole - tiled).mean() < 3


def test_tiles_cover_every_pixel() -> None:
    for length in (1, 63, 64, 65, 127, 500):
        seen = {x for start in starts(length, 64, 16) for x in range(start, start + 64)}
        assert seen >= set(range(length))


def test_one_bad_file_does_not_stop_the_rest(restorer: Restorer, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "deep" / "good.png", photograph(9, 12))
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no image")
    report = restore_files([tmp_path / "in"], tmp_path / "out", restorer, None)
    assert [path.name for path, _ in report.failed] == ["bad.jpg"]
    restored = read_rgb8(tmp_path / "out" / "deep" / "good.png")
    assert np.array_equal(restored, photograph(9, 12))
    assert not (tmp_path / "out" / "bad.png").exists()


def test_nothing_is_written_over(restorer: Restorer, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    write_png(source, photograph(8, 8))
    write_png(tmp_path / "out" / "a.png", photograph(3, 3))
    report = restore_files([source], tmp_path / "out", restorer, None)
    assert "--force" in str(report.failed[0][1])
    assert read_rgb8(tmp_path / "out" / "a.png").shape == (3, 3, 3)
    assert not restore_files([source], tmp_path / "out", restorer, None, force=True).failed
    over_itself = restore_files([source], tmp_path, restorer, None, force=True)
    assert isinstance(over_itself.failed[0][1], DataError)


def test_outputs_that_cannot_be_are_refused(restorer: Restorer, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp"):
        (tmp_path / name).touch()
    both = [tmp_path / "a.png", tmp_path / "a.bmp"]
    for inputs, out in ((both, "out"), (both, "one.png"), (both[:1], "one.jpg")):
        with pytest.raises(UsageError):
            restore_files(inputs, tmp_path / out, restorer, None)


def test_a_link_in_a_circle_is_named(restorer: Restorer, tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", photograph(16, 16))
    (tmp_path / "circle.png").symlink_to("circle.png")
    inputs = [tmp_path / "circle.png", tmp_path / "a.png"]
    report = restore_files(inputs, tmp_path / "out", restorer, None)
    assert [path.name for path, _ in report.failed] == ["circle.png"]
    assert (tmp_path / "out" / "a.png").exists()
