"""Where things lie: the environment moves all three places, for every command alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmfe_cache.datasets import data_root
from mmfe_cache.places import CACHE, DATA, RUNS
from mmfe_cache.store import store_path
from mmfe_cli.app import run
from mmfe_restore.model.folders import finished_runs, newest_checkpoint
from mmfe_restore.training.run_dir import default_folder


@pytest.fixture(params=["unset", "empty", "set"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    for place in (DATA, CACHE, RUNS):
        monkeypatch.delenv(place.variable, raising=False)
        if request.param != "unset":
            value = f"/disk/{place.default}" if request.param == "set" else ""
            monkeypatch.setenv(place.variable, value)
    return "/disk/" if request.param == "set" else ""


def test_the_environment_moves_every_place(where: str) -> None:
    assert data_root("cdd11") == Path(f"{where}data/cdd11")
    assert data_root("cdd11", Path("mine")) == Path("mine")
    assert store_path("cdd11", "train", "scene") == Path(f"{where}cache/cdd11/train/scene.zarr")
    assert default_folder("table4a/mofe", []) == Path(f"{where}runs/table4a-mofe")


def test_a_home_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFE_RUNS", "~/runs")
    assert default_folder("demo", []) == Path.home() / "runs" / "demo"


def test_the_newest_run_is_looked_for_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "config.json").write_text("{}")
    monkeypatch.setenv("MMFE_RUNS", str(tmp_path))
    assert newest_checkpoint() == tmp_path / "mine" / "model"
    monkeypatch.setenv("MMFE_RUNS", str(tmp_path / "none"))
    assert run(["eval"]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_the_newest_run_may_be_a_row_of_an_ablation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one with `--set` too, whose runs lie a level deeper."""
    monkeypatch.setenv("MMFE_RUNS", str(tmp_path))
    names = ("demo", "table4a/full", "set-0123abcd/table4a/full")
    for time, name in enumerate(names):
        config = tmp_path / name / "model" / "config.json"
        config.parent.mkdir(parents=True)
        config.write_text("{}")
        os.utime(config, (time, time))
        assert newest_checkpoint() == config.parent
    assert finished_runs() == sorted(tmp_path / name for name in names)
