"""`mmfe doctor`: what it says is true of this environment."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.specifiers import SpecifierSet

from mmfe_cli.app import run
from mmfe_cli.doctor import fits
from mmfe_cli.packages import packages


def test_it_says_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMFE_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["mmfe"] == metadata.version("mmfe")
    assert found["python"].endswith(platform.python_version())
    assert found["torch"]["version"] == torch.__version__
    assert len(found["devices"]) == 1 + torch.cuda.device_count()
    assert found["threads"]["count"] == 3
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["memory"]["total"] == pages >= found["memory"]["free"] > 0
    listed = {one["name"]: one["installed"] for one in found["packages"]}
    assert listed["numpy"] == metadata.version("numpy")
    assert "matplotlib" not in listed
    assert set(found["extras"]) >= {"plots", "wandb", "onnx", "heic", "raw", "remote"}
    assert found["places"]["cache"]["path"] == str(tmp_path)
    assert found["places"]["cache"]["exists"] and not found["places"]["runs"]["exists"]
    assert found["places"]["runs"]["path"] == str(tmp_path / "runs")
    assert {one["name"]: one["intact"] for one in found["weights"]} == {
        "mmfe-small": True,
        "scene": True,
    }
    assert found["environment"]["OMP_NUM_THREADS"] == "3"


def test_people_read_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    said = capsys.readouterr().out
    for words in (f"torch {torch.__version__.split('+')[0]}", "mmfe-small", "nothing is wrong"):
        assert words in said


def test_what_is_wrong_is_said_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmfe_restore.model import folders

    true_version = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "2.6.2" if name == "lightning" else true_version(name)
    )
    monkeypatch.setattr(folders, "WEIGHTS", "config.json")
    assert run(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "lightning 2.6.2 is installed" in captured.err
    assert "mmfe-small are not the ones that were shipped" in captured.err
    assert "DAMAGED" in captured.out and "nothing is wrong" not in captured.out


@pytest.mark.parametrize("wanted", sorted({one.versions for one in packages(development=True)}))
def test_versions_are_compared_as_pip_does(wanted: str) -> None:
    for version in ("0", "0.7", "1.5.0", "1.10", "2", "2.6", "2.6.2", "2.6.3", "2.6.10", "10.3",
                    "78.1.0", "78.1.1", "82", "2024.6", "3.999"):  # fmt: skip
        assert fits(version, wanted) == SpecifierSet(wanted).contains(version), version
    assert fits("2.14.1+cpu", ">=2.11") and not fits("2.10+cpu", ">=2.11")
