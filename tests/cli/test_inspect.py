from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmfe_cache.datasets.demo_photographs import bundled_photographs
from mmfe_cache.degradations import degrade
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph as it is, and under three of the degradations."""
    folder = tmp_path_factory.mktemp("pictures")
    photograph = read_rgb8(bundled_photographs().test[0].path)[:288, :384]
    for name in ("clear", "low", "haze", "rain"):
        seen = photograph
        if name != "clear":
            severities = {name: 0.9}
            made = degrade(photograph, name, seed_parts=("inspect",), severities=severities)
            seen = made.image
        write_png(folder / f"{name}.png", seen)
    return folder


def test_it_says_what_was_done(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(pictures), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["guide"] == "scene"
    assert found["failed"] == []
    by_name = {Path(one["input"]).stem: one for one in found["seen"]}
    assert set(by_name) == {"clear", "low", "haze", "rain"}
    for name, one in by_name.items():
        present = {k for k, v in one["degradations"].items() if v["probability"] > 0.5}
        assert present == ({name} if name != "clear" else set())
        for value in one["degradations"].values():
            assert (value["severity"] > 0) == (value["probability"] >= 0.5)
        assert (one["traits"]["airlight"] is None) == (name != "haze")
        assert (one["traits"]["noise"] is None) == (name != "low")


def test_a_bad_file_is_named_and_the_rest_goes_on(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    write_png(tmp_path / "good.png", np.zeros((70, 70, 3), np.uint8))
    assert run(["inspect", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["input"]).name for one in found["seen"]] == ["good.png"]
    assert "broken.png" in found["failed"][0]["error"]


@pytest.mark.parametrize("guide", ["oracle", "prompt", "qwen2.5-vl-3b", "timm:vit_tiny", "toy"])
def test_a_guide_that_names_no_degradations_is_refused_before_anything_is_fetched(
    guide: str,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy").mkdir()
    config = '{"model_type": "qwen2_5_vl", "hidden_size": 8}'
    Path("toy/config.json").write_text(config, encoding="utf-8")
    assert run(["inspect", str(pictures / "low.png"), "--guide", guide]) == 2
    said = capsys.readouterr().err
    assert "names no degradations" in said
    assert "download" not in said


def test_the_table_fits_and_shows_every_label(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(pictures)]) == 0
    printed = capsys.readouterr().out
    for word in ("low", "haze", "rain", "snow", "airlight", "noise", "clear.png"):
        assert word in printed


def test_a_photograph_that_is_not_there_leaves_the_others_alone(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.png"
    for others, count in (([pictures / "rain.png"], 1), ([], 0)):
        assert run(["inspect", *map(str, others), str(gone), "--json"]) == 1
        captured = capsys.readouterr()
        found = json.loads(captured.out)
        assert len(found["seen"]) == count
        assert [one["input"] for one in found["failed"]] == [str(gone)]
        assert f"image {gone} does not exist" in captured.err.replace("\n", " ")


def test_photographs_of_one_name_are_told_apart(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "same.png", read_rgb8(pictures / "clear.png")[:64, :64])
    write_png(tmp_path / "a" / "one.png", read_rgb8(pictures / "clear.png")[:64, :64])
    assert run(["inspect", "a", "b"]) == 0
    shown = capsys.readouterr().out
    assert "a/same.png" in shown and "b/same.png" in shown
    assert "a/one.png" not in shown and "one.png" in shown
