"""A checkpoint finds the guide that it was trained with by a relative path, from anywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photographs

from mmfe_cli.app import run
from mmfe_restore import Restorer, load_recipe
from mmfe_restore.model.folders import find_recorded_guide, guide_record, recipe_of

GUIDE = "my-scene.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a guide, a data set, its caches and a run, made from inside that folder."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        scene = resources.files("mmfe_cache.guides.scene") / "scene.safetensors"
        Path(GUIDE).write_bytes(scene.read_bytes())
        Path("photos").mkdir()
        for name in ("astronaut", "coffee"):
            Image.fromarray(getattr(photographs, name)()).save(f"photos/{name}.png")
        synth = ["--max-side", "48", "--composition", "low", "--test-share", "0.5"]
        assert run(["data", "synth", "photos", "--out", "data/cdd11", *synth]) == 0
        views = ["--views", "crop@32,whole@32"]
        assert run(["cache", "build", "--dataset", "cdd11", "--guide", GUIDE, *views]) == 0
        changes = [
            f"guide={GUIDE}",
            "train.stages=[{epochs: 1, resolution: 32, batch_size: 1}]",
            "train.max_steps=1",
            "model.width=8",
            "model.num_heads=[1,1,2,2]",
            "data.repeats={}",
            "eval.view=whole@32",
        ]
        sets = [word for change in changes for word in ("--set", change)]
        assert run(["train", "--recipe", "demo", "--out", "runs/mine", *sets]) == 0
    return folder


def restore(folder, photo, tmp_path, *extra):
    return run(["restore", str(photo), "-o", str(tmp_path / "out"), "--force", *extra])


def test_restore_and_eval_from_another_folder(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = ["--checkpoint", str(trained / "runs/mine")]
    photo = next((trained / "data/cdd11/test/low").iterdir())
    capsys.readouterr()
    assert restore(trained, photo, tmp_path, *checkpoint, "--json") == 0
    assert json.loads(capsys.readouterr().out)["guide"] == "my-scene"
    places = ["--root", str(trained / "data/cdd11"), "--cache", str(trained / "cache/cdd11")]
    assert run(["eval", *checkpoint, *places, "--out", str(tmp_path / "report")]) == 0


def test_guide_and_run_may_move_together(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "runs", tmp_path / "moved/runs")
    shutil.copy(trained / GUIDE, tmp_path / "moved" / GUIDE)
    (trained / GUIDE).rename(trained / "away")
    try:
        recipe = recipe_of(tmp_path / "moved/runs/mine/model")
        assert Path(recipe.guide.name) == tmp_path / "moved" / GUIDE
    finally:
        (trained / "away").rename(trained / GUIDE)


def test_a_guide_that_is_nowhere_is_said_to_have_been_where(trained, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    photo = next((trained / "data/cdd11/test/low").iterdir())
    (trained / GUIDE).rename(trained / "away.safetensors")
    try:
        assert restore(trained, photo, tmp_path, "--checkpoint", "runs/mine") == 1
        message = capsys.readouterr().err
        assert f"nothing at {trained / GUIDE}" in message
        assert "--guide PATH" in message
        named = ["--guide", str(trained / "away.safetensors")]
        assert restore(trained, photo, tmp_path, "--checkpoint", "runs/mine", *named) == 0
        places = ["--root", str(trained / "data/cdd11"), "--cache", str(trained / "cache/cdd11")]
        assert run(["eval", "--checkpoint", "runs/mine", *places]) == 3
        message = capsys.readouterr().err
        assert str(trained / GUIDE) in message
        store = next((trained / "cache/cdd11/test").glob("my-scene-*.zarr"))
        assert run(["eval", "--checkpoint", "runs/mine", *places[:2], "--cache", str(store)]) == 0
    finally:
        (trained / "away.safetensors").rename(trained / GUIDE)


def test_only_a_guide_of_ones_own_is_recorded(trained, tmp_path):
    config = json.loads((trained / "runs/mine/model/config.json").read_text())
    assert config["recipe"]["guide"]["name"] == GUIDE
    assert config["guide_path"] == {
        "absolute": str(trained / GUIDE),
        "relative": f"../../../{GUIDE}",
    }
    recipe = load_recipe("demo", ["model.width=8", "model.num_heads=[1,1,2,2]"])
    Restorer.from_recipe(recipe).save_pretrained(tmp_path)
    assert "guide_path" not in json.loads((tmp_path / "config.json").read_text())


def test_a_checkpoint_saved_again_still_knows_its_guide(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Restorer.from_pretrained(trained / "runs/mine/model").save_pretrained(tmp_path / "again")
    assert recipe_of(tmp_path / "again").guide.name == str(trained / GUIDE)


def test_the_guide_here_is_meant_where_it_lies_where_the_recipe_says(trained, monkeypatch):
    monkeypatch.chdir(trained)
    assert recipe_of(trained / "runs/mine/model").guide.name == GUIDE


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("toy", "toy"),
        ("../guides/qwen2.5-vl", "../guides/qwen2.5-vl"),
        ("timm:resnet18,pool=last,weights=w.pth", "w.pth"),
        ("timm:resnet18,weights=random", None),
        ("timm:resnet18", None),
        ("qwen2.5-vl-3b", None),
        ("scene", None),
    ],
)
def test_the_path_in_a_guides_name(name, path, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("scene").mkdir()  # a folder of a guide's name is not that guide
    if path is not None:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).touch()
    record = guide_record(name, tmp_path / "runs/mine/model")
    if path is None:
        assert record is None
        return
    recipe = load_recipe("demo")
    recipe = replace(recipe, guide=replace(recipe.guide, name=name))
    monkeypatch.chdir(tmp_path)
    found = find_recorded_guide(recipe, {"guide_path": record}, tmp_path / "runs/mine/model")
    assert found.guide.name == name.replace(path, str((tmp_path / "here" / path).resolve()))
