"""What another Python, or another version of a dependency, breaks first: `make smoke`.

It needs no development tool but pytest.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mmfe_cache
import mmfe_cli
import mmfe_restore
from mmfe_cache import open_cache
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run

TINY = (
    "guide=oracle",
    "data.repeats={}",
    "model.width=4",
    "model.num_blocks=[1,1,1,1]",
    "model.num_heads=[1,1,2,2]",
    "model.num_refinement_blocks=0",
    "model.num_experts=2",
    "train.view=whole",
    "train.stages=[{epochs: 1, resolution: 16, batch_size: 2}]",
    "train.max_steps=2",
)


def test_every_module_is_imported():
    for package in (mmfe_cache, mmfe_restore, mmfe_cli):
        (folder,) = package.__path__
        for file in sorted(Path(folder).rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            if parts[-1] != "__main__":
                importlib.import_module(".".join((package.__name__, *parts)))


def test_the_program_helps():
    program = Path(sys.executable).with_name("mmfe")
    done = subprocess.run([program, "--help"], capture_output=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "restore" in done.stdout.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic set of three photographs, and its cache by the guide `oracle`."""
    made = tmp_path_factory.mktemp("smoke")
    random = np.random.default_rng(0)
    (made / "photos").mkdir()
    for number in range(3):
        picture = np.kron(random.integers(0, 256, (4, 5, 3)), np.ones((8, 8, 1)))
        write_png(made / "photos" / f"{number}.png", picture.astype(np.uint8))
    classes = ["--composition", "low", "--composition", "haze"]
    assert run(["data", "synth", str(made / "photos"), "--out", str(made / "set"), *classes]) == 0
    build = ["cache", "build", "--dataset", "cdd11", "--root", str(made / "set")]
    options = ["--guide", "oracle", "--views", "whole@16", "--out", str(made / "cache")]
    assert run([*build, *options]) == 0
    return made


def test_a_cache_gives_back_what_was_put_in(folder: Path, capsys: pytest.CaptureFixture[str]):
    from mmfe_cache.datasets import load_dataset
    from mmfe_cache.guides import load_guide
    from mmfe_cache.store import store_path

    path = store_path("cdd11", "train", "oracle", root=folder / "cache")
    samples = load_dataset("cdd11", "train", folder / "set").samples
    kept = open_cache(path).gather(range(len(samples)), "whole@16")
    told = load_guide("oracle").encode_samples(samples).select("grid")
    for name in ("image", "joint", "answer"):
        # A cache holds float16.
        given = np.asarray(getattr(told, name)).astype(np.float16)
        assert np.array_equal(np.asarray(getattr(kept, name)), given)
    assert run(["cache", "verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intact"]


def test_two_steps_of_training_and_a_picture_restored_by_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sets = [word for override in TINY for word in ("--set", override)]
    words = ["train", "--recipe", "demo", *sets, "--root", str(folder / "set")]
    out = tmp_path / "run"
    assert run([*words, "--cache", str(folder / "cache"), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["completed"]
    assert report["steps"] == 2
    photo = str(folder / "photos" / "0.png")
    words = ["restore", photo, "-o", str(tmp_path / "own.png"), "--checkpoint", str(out)]
    assert run([*words, "--guide", "none"]) == 0
    assert read_rgb8(tmp_path / "own.png").shape == (32, 40, 3)


def test_a_picture_restored_by_the_network_that_comes_along(folder: Path, tmp_path: Path):
    (degraded,) = sorted((folder / "set" / "train" / "low").iterdir())[:1]
    assert run(["restore", str(degraded), "-o", str(tmp_path / "out.png")]) == 0
    restored = read_rgb8(tmp_path / "out.png")
    assert restored.shape == (32, 40, 3)
    # Low light is what it mends best: the picture comes out brighter.
    assert restored.mean() > read_rgb8(degraded).mean() + 5
