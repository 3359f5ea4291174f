"""Scores without ground truth. A stand-in takes pyiqa's place: its weights are downloaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mmfe_cache.errors import MmfeError, UsageError
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run
from mmfe_restore.metrics.no_reference import load_score, score_picture
from mmfe_restore.metrics.registry import Settings, chosen_metrics

CPU = torch.device("cpu")


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Has pyiqa's one function: a metric is called with (B, 3, H, W) and gives (B, 1).

    It prints to stdout, as pyiqa does, which JSON is read from.
    """
    module = ModuleType("pyiqa")

    def create_metric(name: str, device: torch.device):
        assert isinstance(device, torch.device)
        if name == "musiq":
            raise OSError("no network")
        print(f"Loading pretrained model {name}")

        def metric(images: torch.Tensor) -> torch.Tensor:
            print("scoring")
            return images.mean(dim=(1, 2, 3))[:, None] * 100

        return metric

    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    load_score.cache_clear()
    yield module
    load_score.cache_clear()


def test_before_and_after_of_a_photograph(
    pyiqa, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    image = np.random.default_rng(0).integers(0, 60, (24, 40, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", image)
    words = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png")]
    assert run([*words, "--score", "niqe", "--json"]) == 0
    told = capsys.readouterr()
    (one,) = json.loads(told.out)["restored"]
    restored = read_rgb8(tmp_path / "out.png")
    assert one["scores"]["niqe"]["before"] == pytest.approx(image.mean() / 2.55, abs=1e-3)
    assert one["scores"]["niqe"]["after"] == pytest.approx(restored.mean() / 2.55, abs=1e-3)
    assert "non-commercial" in told.err and "Loading pretrained model niqe" in told.err
    assert run([*words, "--force", "--json"]) == 0
    told = capsys.readouterr()
    assert "scores" not in json.loads(told.out)["restored"][0]
    assert "non-commercial" not in told.err


def test_a_score_is_a_metric_of_an_evaluation(pyiqa):
    (metric,) = [one for one in chosen_metrics(("brisque",)) if one.name == "brisque"]
    assert not metric.higher_is_better
    images = torch.stack([torch.full((3, 200, 200), value) for value in (0.25, 0.5)])
    found = metric.load(Settings(CPU))(images, torch.zeros_like(images))
    assert found.tolist() == [25.0, 50.0]
    assert found.dtype == torch.float64


def test_what_is_missing_is_said_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), np.uint8))
    words = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--score"]
    assert run([*words, "niqe"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'mmfe[score]'" in said
    assert "non-commercial" in said
    assert run([*words, "vmaf"]) == 2
    said = capsys.readouterr().err
    assert "'vmaf' is not one of" in said
    assert all(f"'{name}'" in said for name in ("niqe", "brisque", "musiq", "clipiqa"))
    assert not (tmp_path / "out.png").exists()
    with pytest.raises(UsageError, match="pyiqa"):
        chosen_metrics(("niqe",))


def test_weights_that_cannot_be_fetched_are_said(pyiqa):
    with pytest.raises(MmfeError, match="could not load musiq") as said:
        score_picture("musiq", np.zeros((8, 8, 3), np.uint8), CPU)
    assert "no network" in str(said.value)


def test_weights_that_cannot_be_fetched_are_said_once_before_anything_is_restored(
    pyiqa, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("a.png", "b.png"):
        write_png(tmp_path / "in" / name, np.zeros((8, 8, 3), np.uint8))
    words = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--score", "musiq"]
    assert run(words) == 1
    assert capsys.readouterr().err.count("could not load musiq") == 1
    assert not (tmp_path / "out").exists()


def test_a_photograph_that_cannot_be_judged_is_not_restored(
    pyiqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(images: torch.Tensor) -> torch.Tensor:
        raise ValueError("too small to be judged")

    monkeypatch.setattr(pyiqa, "create_metric", lambda name, device: refuse)
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), np.uint8))
    words = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out"), "--score", "niqe"]
    assert run(words) == 1
    assert "too small to be judged" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
