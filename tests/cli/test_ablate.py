"""`mmfe ablate`: plans, real runs of a whole table, resumption, and bad input."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mmfe_cache.datasets.synth import write_synth
from mmfe_cache.embeddings import DEFAULT_PROMPT
from mmfe_cache.errors import CacheError, UsageError
from mmfe_cache.progress import Progress
from mmfe_cli.app import run
from mmfe_restore.evaluation import ablation_plan
from mmfe_restore.evaluation.ablation import run_plan
from mmfe_restore.evaluation.ablation_plan import ABLATIONS, make_plan
from mmfe_restore.evaluation.ablation_rows import place_of
from mmfe_restore.recipes import load_recipe, recipe_to_dict
from mmfe_restore.training.run_dir import claim

SMALL = [
    "guide=scene", "model.width=8", "model.num_blocks=[1,1,1,1]", "model.num_refinement_blocks=1",
    "model.num_heads=[1,1,1,1]", "eval.view=whole@64", "train.num_workers=0",
    "train.stages=[{epochs: 1, resolution: 32, batch_size: 8}]", "train.max_steps=2",
]  # fmt: skip
SET = [word for override in SMALL for word in ("--set", override)]


@pytest.mark.parametrize(
    ("table", "rows"),
    list(zip(ABLATIONS, (7, 3, 5, 2, 5, 2), strict=True)),
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
    "table5c/qwen2.5-vl-3b", "tableS1/without-ll", "prompts/paper",
}  # fmt: skip


def test_rows_that_are_the_same_training_say_so_and_share_it(tmp_path, capsys, monkeypatch):
    import yaml

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
    # It was asked what the one store of `train --cache` was, and the rows ask the paper's question.
    wet = {"guide_fingerprint": {"guide.prompt": "Is it wet?"}}
    (folder / "model" / "config.json").write_text(json.dumps(wet))
    assert run(command) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert (rows["table4b/full"]["state"], rows["table4b/full"]["out"]) == (
        "missing",
        "runs/table4b/full",
    )
    assert run(["ablate", "table4a", "--dry-run"]) == 2
    assert "got:      guide.prompt='Is it wet?'" in capsys.readouterr().err
    (folder / "model" / "config.json").write_text("{}")
    # Another recipe in that place is no equal run.
    recipe["train"]["seed"] = 7
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run(command) == 0
    rows = {row["recipe"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["table4b/full"]["state"] == "missing"


def put_run(folder, recipe, *, finished):
    import yaml

    values = recipe_to_dict(recipe)
    (folder / "model").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    if finished:
        (folder / "model" / "config.json").write_text(json.dumps({"recipe": values}))


def test_a_finished_equal_run_goes_before_a_start_of_the_rows_own(tmp_path):
    put_run(tmp_path / "table4b" / "full", load_recipe("table4b/full"), finished=False)
    put_run(tmp_path / "table5b" / "frequency", load_recipe("table5b/frequency"), finished=False)

    def found():
        (one,) = make_plan("table4b", out=tmp_path).rows[0].runs
        return one.out.relative_to(tmp_path).as_posix(), one.state

    assert found() == ("table4b/full", "started")
    put_run(tmp_path / "table4a" / "full", load_recipe("table4a/full"), finished=True)
    assert found() == ("table4a/full", "trained")
    shutil.rmtree(tmp_path / "table4b" / "full")
    put_run(tmp_path / "table4b" / "full", load_recipe("table4b/full"), finished=True)
    assert found() == ("table4b/full", "trained")


def test_the_same_training_is_drawn_rather_than_one_with_other_settings(tmp_path):
    put_run(tmp_path / "cdd11", load_recipe("cdd11", ["loss.mgl=0"]), finished=True)
    assert place_of("table4b/full", tmp_path) == tmp_path / "cdd11"
    put_run(tmp_path / "tableS1" / "without-ll", load_recipe("tableS1/without-ll"), finished=True)
    assert place_of("table4b/full", tmp_path) == tmp_path / "tableS1" / "without-ll"


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


def run_table5b(data, folder, capsys, *more):
    """`mmfe ablate table5b` with its caches and runs in ``folder``; its JSON."""
    assert run([*table5b(data, folder), *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def table5b(data, folder):
    return ["ablate", "table5b", "--root", str(data), "--cache", str(folder / "cache"),
            "--out", str(folder / "runs"), "--set", "model.num_experts=2", *SET]  # fmt: skip


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """A table's first run: the folder of its caches and runs, and what it printed."""
    import io
    from contextlib import redirect_stdout

    folder = tmp_path_factory.mktemp("first")
    with redirect_stdout(io.StringIO()) as out:
        assert run([*table5b(data, folder), "--json"]) == 0
    return folder, json.loads(out.getvalue())


@pytest.fixture
def there(first, tmp_path):
    """The same, for one test to go on with."""
    return shutil.copytree(first[0], tmp_path / "there")


def test_every_row_from_one_cache_and_nothing_twice(data, first, there, capsys):
    _, once = first
    # One training view of 11 samples and one evaluation view of 11.
    assert once["guide_calls"] == {"build": 22, "train": 0, "eval": 0}
    for row in once["rows"]:
        assert row["state"] == "evaluated"
        assert np.isfinite(row["average"]["psnr"])
    models = sorted((there / "runs").rglob("model.safetensors"))
    assert len(models) == 2
    before = [path.stat().st_mtime_ns for path in models]
    again = run_table5b(data, there, capsys)
    assert again["guide_calls"] == {"build": 0, "train": 0, "eval": 0}
    assert [row["average"] for row in again["rows"]] == [row["average"] for row in once["rows"]]
    assert [path.stat().st_mtime_ns for path in models] == before
    measured = again["rows"][0]["measured"]
    assert (measured["protocol"], measured["rounding"]) == ("mmfe", "none")
    assert measured["guide"] == "scene"
    assert again["reference"] == "table5b/frequency"
    frequency, spatial = again["rows"]
    assert frequency["difference"] is None
    assert spatial["difference"]["psnr"]["mean"] == pytest.approx(
        spatial["average"]["psnr"] - frequency["average"]["psnr"], abs=1e-6
    )
    assert spatial["spread"] is None
    # Other overrides in the same place would mix two experiments.
    assert run([*table5b(data, there), "--set", "train.seed=1"]) == 2
    assert "another recipe" in capsys.readouterr().err


def test_more_seeds_take_the_first_ones_as_they_are(data, first, there, capsys):
    _, once = first
    twice = run_table5b(data, there, capsys, "--seeds", "2")
    assert twice["guide_calls"] == {"build": 0, "train": 0, "eval": 0}
    assert len(list((there / "runs").rglob("model.safetensors"))) == 4
    for row, before in zip(twice["rows"], once["rows"], strict=True):
        assert [one["seed"] for one in row["seeds"]] == [0, 1]
        assert row["seeds"][0]["average"] == before["average"]
        assert row["seeds"][1]["out"].endswith("-seed1")
        each = [one["average"]["psnr"] for one in row["seeds"]]
        assert each[0] != each[1]
        assert row["average"]["psnr"] == pytest.approx(np.mean(each))
        assert row["spread"]["psnr"] == pytest.approx(np.std(each, ddof=1))
    found = twice["rows"][1]["difference"]["psnr"]
    assert found["per_seed"][0] == pytest.approx(once["rows"][1]["difference"]["psnr"]["mean"])
    assert found["mean"] == pytest.approx(np.mean(found["per_seed"]))
    assert run([*table5b(data, there), "--seeds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "sd of seeds" in shown
    assert "95 % of seeds" in shown


def test_a_row_is_judged_at_the_view_it_was_trained_at_too(data, first, there, capsys, monkeypatch):
    _, once = first
    table = ablation_plan.published_table("table5b")
    also = (table.rows[0], replace(table.rows[1], also_as_trained=True))
    monkeypatch.setattr(ablation_plan, "published_table", lambda name: replace(table, rows=also))
    further = run_table5b(data, there, capsys)
    assert further["guide_calls"] == {"build": 11, "train": 0, "eval": 0}
    assert [row["average"] for row in further["rows"]] == [row["average"] for row in once["rows"]]
    (one,) = further["rows"][1]["also"]
    assert one["view"] == "whole@32"
    assert one["average"]["psnr"] != further["rows"][1]["average"]["psnr"]
    assert run(table5b(data, there)) == 0
    assert "spatial, at whole@32" in capsys.readouterr().out
    # A report at the further view, judged in another way: what the refusal advises makes that one.
    row, place = there / "runs" / "table5b" / "spatial", "eval-at-whole-32/cdd11-test"
    sources = ["--root", str(data), "--cache", str(there / "cache")]
    judged = ["--checkpoint", str(row), "--view", "whole@32", "--out", str(row / place), "--force"]
    assert run(["eval", *judged, *sources, "--protocol", "onerestore"]) == 0
    capsys.readouterr()
    assert run(table5b(data, there)) == 2
    advised = re.search(r"mmfe (eval .*--force), with", capsys.readouterr().err)
    assert run([*shlex.split(advised[1]), *sources]) == 0
    capsys.readouterr()
    assert run_table5b(data, there, capsys)["rows"][1]["also"] == [one]


def test_a_row_that_was_judged_by_hand_in_another_way(data, there, capsys):
    """It would mix two protocols in one table."""
    row = ["--checkpoint", str(there / "runs" / "table5b" / "spatial"), "--root", str(data),
           "--cache", str(there / "cache"), "--force"]  # fmt: skip
    assert run(["eval", *row, "--protocol", "onerestore"]) == 0
    capsys.readouterr()
    assert run(table5b(data, there)) == 2
    assert "judged in another way" in capsys.readouterr().err
    assert run(["eval", *row]) == 0
    capsys.readouterr()
    assert run(table5b(data, there)) == 0
    assert "ours: protocol mmfe, whole image" in capsys.readouterr().out
    # One on the embeddings of a student, in its teacher's place; and one that does not say whose.
    report = there / "runs" / "table5b" / "spatial" / "eval" / "cdd11-test" / "metrics.json"
    about = json.loads(report.read_text())
    assert about["embeddings"] == about["guide"] == "scene"
    report.write_text(json.dumps(about | {"embeddings": "student"}))
    assert run(table5b(data, there)) == 2
    assert "embeddings student" in capsys.readouterr().err
    report.write_text(json.dumps(about | {"tokens": "mean", "control": "constant"}))
    assert run([*table5b(data, there), "--dry-run"]) == 2
    assert "tokens mean, control constant\n" in capsys.readouterr().err
    del about["embeddings"]
    report.write_text(json.dumps(about))
    assert run(table5b(data, there)) == 0
    capsys.readouterr()


@pytest.mark.parametrize("judged", [True, False])
def test_a_row_that_was_trained_on_other_data(judged, data, there, capsys):
    """Of a set that was made anew, its cache too; training refuses such a run, and so does this."""
    row = there / "runs" / "table5b" / "spatial"
    record = json.loads((row / "versions.json").read_text())
    record["cache"]["samples.pixels"] = "0" * 32
    (row / "versions.json").write_text(json.dumps(record))
    if not judged:
        shutil.rmtree(row / "eval")
    assert run(table5b(data, there)) == 3
    said = capsys.readouterr().err
    assert f"{row}: the cache is not the one" in said and "samples.pixels='000" in said
    assert run([*table5b(data, there), "--dry-run", "--json"]) == 0
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert str(row) in problem
    # Whoever calls it without that look is told as well.
    overrides = ["model.num_experts=2", *SMALL]
    sources = {"root": data, "cache": there / "cache", "out": there / "runs"}
    with pytest.raises(CacheError, match="not the one"):
        run_plan(make_plan("table5b", overrides, **sources), Progress(), device="cpu")


def test_a_row_trained_at_one_size_is_judged_there_too(data, tmp_path, capsys):
    command = ["ablate", "table4b", "--root", str(data), "--cache", str(tmp_path / "cache"),
               "--out", str(tmp_path / "runs"), "--set", "model.num_experts=2", *SET[:-4],
               "--set", "train.max_steps=1", "--set", "train.num_workers=0"]  # fmt: skip
    assert run([*command, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (test,) = [cache for cache in plan["caches"] if cache["split"] == "test"]
    assert test["views"] == ["whole@64", "whole@128"]
    assert [len(row["seeds"]) for row in plan["rows"]] == [1, 1, 1]


def test_seeds_in_a_dry_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["ablate", "tableS1", "--seeds", "3", "--set", "train.seed=5", "--dry-run"]
    assert run([*command, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][1]
    assert [one["seed"] for one in row["seeds"]] == [5, 6, 7]
    assert [one["out"].rsplit("/", 1)[1] for one in row["seeds"]] == [
        "with-ll", "with-ll-seed6", "with-ll-seed7",
    ]  # fmt: skip
    # Rows with overrides lie apart, never in the place of the table's own.
    assert all(re.match("runs/set-[0-9a-f]{8}/tableS1/", one["out"]) for one in row["seeds"])

    def place(*seeds: int) -> str:
        words = [word for seed in seeds for word in ("--set", f"train.seed={seed}")]
        assert run(["ablate", "tableS1", *words, "--dry-run", "--json"]) == 0
        return json.loads(capsys.readouterr().out)["rows"][1]["out"]

    # Of a key that is given twice the last value counts, for the folder as for the training.
    assert place(1, 5) == place(5) == row["out"] != place(5, 1) == place(1)
    # How a step is computed gives no folder of its own: rows go on with it, as out of memory says.
    assert run(["ablate", "tableS1", "--set", "train.accumulate=4", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][1]["out"] == "runs/tableS1/with-ll"
    assert run(command) == 0
    assert "missing: 5, 6, 7" in capsys.readouterr().out
    assert run(["ablate", "tableS1", "--seeds", "0", "--dry-run"]) == 2


def test_a_dry_run_names_what_would_stop_the_table(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["ablate", "table4a", "--dry-run", "--json", "--root"]
    assert run([*words, "nowhere"]) == 0
    told = capsys.readouterr()
    problems = json.loads(told.out)["problems"]
    # Once for both splits, and the guide, whose weights nobody has here.
    assert len(problems) == 2 and "nowhere" in problems[0] and "qwen2.5-vl-3b" in problems[1]
    assert told.err.count("no folder nowhere") == 1
    assert run([*words, str(data)]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == problems[1:]


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_device_that_training_would_not_take(device, tmp_path, monkeypatch):
    from mmfe_cache.progress import Progress
    from mmfe_restore.evaluation import ablation

    monkeypatch.setattr("mmfe_cache.machine.has_gpu", lambda: True)
    monkeypatch.setattr("torch.empty", lambda *_shape, **_options: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plan = make_plan("table5b", ["guide=scene"], out=tmp_path)
    with pytest.raises(UsageError, match="training takes the first GPU"):
        ablation.run_plan(plan, Progress(), device=device)


def test_ctrl_c_while_a_row_is_trained(data, there, capsys, monkeypatch):
    """The training ends by itself and has saved; the table is interrupted all the same."""
    from mmfe_cli import output
    from mmfe_restore import training

    def stopped(*arguments, **options):
        return SimpleNamespace(completed=False, stopped_by="SIGINT")

    monkeypatch.setattr(training, "train", stopped)
    monkeypatch.setattr(output.VERBOSITY, "told", False)
    assert run([*table5b(data, there), "--seeds", "2"]) == 130
    told = capsys.readouterr().err
    assert "was stopped by SIGINT, and saved" in told
    assert "run the same command again to go on" in told


def test_overrides_that_undo_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", "table5c", "--dry-run", "--set", "guide=scene"]) == 2
    assert "two rows are the same" in capsys.readouterr().err


def test_unknown_table(capsys):
    assert run(["ablate", "table1", "--dry-run"]) == 2
    assert "table4a" in capsys.readouterr().err


def test_the_table_of_prompts(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", "prompts", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["reference"] == plan["rows"][0]["recipe"] == "prompts/paper"
    assert "cdd11" in plan["rows"][0]["shares"]
    assert {row["parameters"] for row in plan["rows"]} == {37_487_012}
    training = {cache["prompt"] for cache in plan["caches"] if cache["split"] == "train"}
    judged = {cache["prompt"] for cache in plan["caches"] if cache["split"] == "test"}
    assert training == judged  # `drawn` trains on prompts of other rows
    assert len({cache["path"] for cache in plan["caches"]}) == 2 * len(training) == 8
    asked = ["--prompt", "Is it dark?", "--prompt", "Ist es dunkel?"]
    assert run(["ablate", "prompts", *asked, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in plan["rows"]] == ["Is it dark?", "Ist es dunkel?"]
    assert plan["rows"][0]["recipe"].startswith("prompts/is-it-dark-")
    assert len({row["out"] for row in plan["rows"]}) == 2
    assert len({cache["path"] for cache in plan["caches"]}) == 4


def test_the_first_of_ones_own_prompts_is_the_reference(tmp_path, capsys, monkeypatch):
    """Also where another one is the paper's question, and so the full model's."""
    monkeypatch.chdir(tmp_path)
    asked = ["--prompt", "Is it dark?", "--prompt", DEFAULT_PROMPT]
    assert run(["ablate", "prompts", *asked, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["reference"] == plan["rows"][0]["recipe"]
    assert "cdd11" in plan["rows"][1]["shares"]


def test_a_begun_run_is_taken_up_whether_the_papers_question_is_named_or_not(tmp_path):
    out = tmp_path / "table4a" / "full"
    assert claim(out, load_recipe("table4a/full")) == ""
    before = (out / "recipe.yaml").read_bytes()
    plan = make_plan("prompts", out=tmp_path, prompts=["Is it dark?", DEFAULT_PROMPT])
    (shared,) = plan.rows[1].runs
    assert (shared.state, shared.out) == ("started", out)
    assert claim(out, shared.recipe) == ""
    assert (out / "recipe.yaml").read_bytes() == before
    # What is said to have changed is how it is computed, and that alone.
    recipe = shared.recipe
    halves = replace(recipe, train=replace(recipe.train, accumulate=2))
    assert claim(out, halves) == "train.accumulate=1 (now 2)"
    with pytest.raises(UsageError, match="another recipe") as caught:
        claim(out, plan.rows[0].runs[0].recipe)
    assert f"guide.prompt={DEFAULT_PROMPT!r} (now 'Is it dark?')" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompts", "--prompt", "a", "--prompt", "a"], "there twice"),
        (["prompts", "--prompt", " "], "a question about the image"),
        (["prompts", "--prompt", "a", "--set", "guide=scene"], "scene is asked nothing"),
        (["table4a", "--prompt", "a"], "rows of table4a are not prompts"),
    ],
)
def test_prompts_that_make_no_table(words, said, capsys):
    assert run(["ablate", *words, "--dry-run"]) == 2
    assert said in capsys.readouterr().err
