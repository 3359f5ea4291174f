"""`mmfe plot`: what it says and refuses (the drawing is tested beside its library)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mmfe_cache.datasets import load_dataset, write_synth
from mmfe_cache.guides import load_guide
from mmfe_cache.precompute import build_cache
from mmfe_cli.app import run
from mmfe_restore.model import Restorer
from mmfe_restore.recipes import load_recipe

SMALL = (
    "model.width=8", "model.num_blocks=[1,1,1,1]", "model.num_refinement_blocks=1",
    "model.num_heads=[1,1,1,1]",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["embeddings", "none.zarr"], 3),
        (["routing", "--checkpoint", "none"], 2),
        (["experts", "--recipes", "table5a"], 2),
        # No network of the Hub, though it looks like OWNER/NAME.
        (["experts", "--recipes", "cdd11", "--runs", "none"], 2),
    ],
)
def test_what_is_not_there(tmp_path, monkeypatch, capsys, arguments, code):
    monkeypatch.chdir(tmp_path)
    assert run(["plot", *arguments]) == code
    message = capsys.readouterr().err
    assert "none" in message or "table5a" in message
    assert not (tmp_path / "figures").exists()


def test_dominance_needs_a_set_that_records_severities(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split in ("a", "b"):
        (tmp_path / split).mkdir()
        for number in range(2):
            pixels = np.kron(random.integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1)))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / split / f"{number}.png")
    write_synth(tmp_path / "a", tmp_path / "set", test_photos=tmp_path / "b")
    samples = load_dataset("cdd11", "test", tmp_path / "set")
    build_cache(samples, load_guide("oracle"), ["whole@32"], tmp_path / "oracle.zarr")
    assert run(["plot", "embeddings", "oracle.zarr", "--root", "set"]) == 0
    told = capsys.readouterr().out
    assert "of the variance" in told
    assert "mixtures with a dominant part" in told
    assert "composition alone at most" in told
    # Another set of the same names: its severities are not those of the cache's pictures.
    write_synth(tmp_path / "a", tmp_path / "again", test_photos=tmp_path / "b", seed=1)
    assert run(["plot", "embeddings", "oracle.zarr", "--root", "again", "--out", "other"]) == 3
    assert "have changed since" in capsys.readouterr().err
    (tmp_path / "set" / "test" / "severities.json").unlink()
    assert run(["plot", "embeddings", "oracle.zarr", "--root", "set", "--out", "other"]) == 1
    assert "leave --root out" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("command", ["embeddings", "routing", "experts", "errors"])
def test_the_example_in_the_help_is_a_command(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")  # below the width at which typer draws boxes
    assert run(["plot", command, "--help"]) == 0
    # The paragraph without its breaks of lines; an empty line ends it.
    paragraph = capsys.readouterr().out.split("Example: mmfe plot ")[1].split("\n\n")[0]
    example = paragraph.split()
    code = run(["plot", *example])
    # It is understood, and ends at the first thing that is not there.
    message = capsys.readouterr().err
    assert "there is no" in message or "is not there" in message
    assert "No such option" not in message
    assert "unexpected" not in message
    assert code in {1, 2, 3}


def test_a_picture_of_ones_own_has_no_embedding_in_a_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["plot", "experts", "--image", "x.png", "--cache", "cache"]) == 2
    assert "--image and --cache exclude each other" in capsys.readouterr().err
    assert run(["plot", "experts", "--image", "x.png", "--sample", "low/1"]) == 2
    assert "--image and --sample exclude each other" in capsys.readouterr().err
    assert run(["plot", "experts", "--image", "x.png", "--root", "nowhere"]) == 2
    assert "--image and --root exclude each other" in capsys.readouterr().err


def finished(folder, recipe, experts):
    about = load_recipe(recipe, ["guide=scene", *SMALL, f"model.num_experts={experts}"])
    Restorer(about.model).save_pretrained(folder / "model", recipe=about)


def test_runs_in_the_papers_order_and_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for count in (1, 2, 4, 8, 16):
        name = f"table5a/experts-{count}"
        finished(tmp_path / "runs" / name, name, count)
    for name in ("a", "b"):
        finished(tmp_path / name, "cdd11", 2)
    Image.new("RGB", (48, 32), "gray").save("gray.png")
    assert run(["plot", "experts", "--recipes", "table5a", "--image", "gray.png", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    found = drawn["centroids"]
    assert drawn["sample"] == "gray.png"
    assert [len(of_run) for of_run in found.values()] == [1, 2, 4, 8, 16]
    two = ["--checkpoint", "a", "--checkpoint", "b", "--out", "two"]
    assert run(["plot", "experts", *two, "--image", "gray.png", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["centroids"]) == 2


def test_a_row_without_a_run_of_its_own_is_drawn_from_the_equal_rows(tmp_path, monkeypatch, capsys):
    """`mmfe ablate` trains rows of several tables that are the same training once."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 32), "gray").save("gray.png")
    finished(tmp_path / "runs" / "table4a" / "full", "table4a/full", 4)
    finished(tmp_path / "runs" / "table4b" / "multiscale", "table4b/multiscale", 2)
    (tmp_path / "runs" / "table5b" / "frequency" / "checkpoints").mkdir(parents=True)
    rows = "table4b/full,table4b/multiscale,table5b/frequency"
    command = ["plot", "experts", "--image", "gray.png", "--json", "--recipes"]
    assert run([*command, rows]) == 0
    told = capsys.readouterr()
    drawn = json.loads(told.out)["centroids"]
    assert {name: len(of_run) for name, of_run in drawn.items()} == {
        "table4b/full": 4, "table4b/multiscale": 2, "table5b/frequency": 4,
    }  # fmt: skip
    for name in ("table4b/full", "table5b/frequency"):
        assert f"{name} is drawn from runs/table4a/full" in " ".join(told.err.split())
    assert "multiscale is drawn" not in told.err
    # One that was trained with other settings is drawn where there is none without, and says so.
    recipe = load_recipe("cdd11", ["guide=scene", *SMALL, "model.num_experts=2", "loss.mgl=0"])
    Restorer(recipe.model).save_pretrained(tmp_path / "runs" / "cdd11" / "model", recipe=recipe)
    assert run([*command, "table4b/full,table4b/multiscale", "--out", "third"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "full is drawn from runs/cdd11, trained with guide.name scene, loss.mgl 0" in said
    assert "the same training" not in said
    assert "table4b/multiscale was trained with guide.name scene, model.guidance_dim" in said
    # A run of its own goes before; a row that equals none is looked for in its own place.
    finished(tmp_path / "runs" / "table4b" / "full", "table4b/full", 8)
    assert run([*command, "table4b/full", "--out", "own"]) == 0
    told = capsys.readouterr()
    assert [len(of_run) for of_run in json.loads(told.out)["centroids"].values()] == [8]
    assert "is drawn from" not in told.err
    assert run([*command, "table4b/neither"]) == 2
    assert "there is no checkpoint at runs/table4b/neither" in capsys.readouterr().err
