"""`mmfe ablate`: plans, real runs of a whole table, resumption, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmfe_cache.datasets.synth import write_synth
from mmfe_cli.app import run
from mmfe_restore.evaluation.ablation_plan import ABLATIONS

SMALL = [
    "guide=scene", "model.width=8", "model.num_blocks=[1,1,1,1]", "model.num_refinement_blocks=1",
    "model.num_heads=[1,1,1,1]", "eval.view=whole@64", "train.num_workers=0",
    "train.stages=[{epochs: 1, resolution: 32, batch_size: 8}]", "train.max_steps=2",
]  # fmt: skip
SET = [word for override in SMALL for word in ("--set", override)]


@pytest.mark.parametrize(
    ("table", "rows"),
    list(zip(ABLATIONS, (7, 3, 5, 2, 4, 2), strict=True)),
)
def test_dry_run_shows_every_row_with_the_printed_parameters(
    table, rows, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", table, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["rows"]) == rows
    for row in plan["rows"]:
        assert row["state"] == "missing"
        printed = row["published"]["parameters"]
        if printed is not None:
            assert round(row["parameters"] / 1e6, 1) == printed
    assert {cache["split"] for cache in plan["caches"]} == {"train", "test"}
    assert all(cache["missing"] == cache["views"] for cache in plan["caches"])
    assert not list(tmp_path.iterdir())


SAME = {
    "cdd11", "table4a/full", "table4b/full", "table5a/experts-8", "table5b/frequency",
    "table5c/qwen2.5-vl-3b", "tableS1/without-ll",
}  # fmt: skip


def test_rows_that_are_the_same_training_say_so_and_share_it(tmp_path, capsys, monkeypatch):
    import yaml

    from mmfe_restore.recipes import load_recipe, recipe_to_dict

    monkeypatch.chdir(tmp_path)
    command = ["ablate", "table4b", "--dry-run", "--json"]
    assert run(command) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows["table4b/full"]["shares"]) == SAME - {"table4b/full"}
    assert rows["table4b/neither"]["shares"] == []
    # What another table has trained already is not trained again.
    folder = tmp_path / "runs" / "table4a" / "full"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    recipe = recipe_to_dict(load_recipe("table4a/full"))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run(command) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert (rows["table4b/full"]["state"], rows["table4b/full"]["out"]) == (
        "trained",
        "runs/table4a/full",
    )
    assert rows["table4b/neither"]["state"] == "missing"
    # Another recipe in that place is no equal run.
    recipe["train"]["seed"] = 7
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run(command) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["table4b/full"]["state"] == "missing"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("ablate")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        (folder / split).mkdir()
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 48)).save(folder / split / f"{split}.png")
    write_synth(folder / "train", folder / "data", test_photos=folder / "test")
    return folder / "data"


def test_every_row_from_one_cache_and_nothing_twice(data, tmp_path, capsys):
    command = ["ablate", "table5b", "--root", str(data), "--cache", str(tmp_path / "cache"),
               "--out", str(tmp_path / "runs"), "--set", "model.num_experts=2", *SET]  # fmt: skip
    assert run([*command, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    # One training view of 11 samples and one evaluation view of 11.
    assert first["guide_calls"] == {"build": 22, "train": 0, "eval": 0}
    for row in first["rows"]:
        assert row["state"] == "evaluated"
        assert np.isfinite(row["average"]["psnr"])
    models = sorted((tmp_path / "runs").rglob("model.safetensors"))
    assert len(models) == 2
    before = [path.stat().st_mtime_ns for path in models]
    assert run([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["guide_calls"] == {"build": 0, "train": 0, "eval": 0}
    assert [row["average"] for row in again["rows"]] == [row["average"] for row in first["rows"]]
    assert [path.stat().st_mtime_ns for path in models] == before
    measured = again["rows"][0]["measured"]
    assert (measured["protocol"], measured["rounding"]) == ("mmfe", "none")
    assert measured["guide"] == "scene"
    # A row that was judged by hand in another way would mix two protocols in one table.
    row = ["--checkpoint", str(tmp_path / "runs" / "table5b" / "spatial"), "--root", str(data),
           "--cache", str(tmp_path / "cache"), "--force"]  # fmt: skip
    assert run(["eval", *row, "--protocol", "onerestore"]) == 0
    capsys.readouterr()
    assert run(command) == 2
    assert "judged in another way" in capsys.readouterr().err
    assert run(["eval", *row]) == 0
    capsys.readouterr()
    assert run(command) == 0
    assert "ours: protocol mmfe, whole image" in capsys.readouterr().out
    # Other overrides in the same place would mix two experiments.
    assert run([*command, "--set", "train.seed=1"]) == 2
    assert "another recipe" in capsys.readouterr().err


def test_overrides_that_undo_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", "table5c", "--dry-run", "--set", "guide=scene"]) == 2
    assert "two rows are the same" in capsys.readouterr().err


def test_unknown_table(capsys):
    assert run(["ablate", "table1", "--dry-run"]) == 2
    assert "table4a" in capsys.readouterr().err
