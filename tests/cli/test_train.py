"""`mmfe train` as a user meets it: configuration, plan, run, exit codes."""

import json

import numpy as np
import pytest
import yaml

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
    "train.log_every=1",
)
SETS = [word for override in TINY for word in ("--set", override)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    from mmfe_cache.datasets import load_dataset, write_synth
    from mmfe_cache.guides import load_guide
    from mmfe_cache.images import write_png
    from mmfe_cache.precompute import build_cache
    from mmfe_cache.store import store_path

    folder = tmp_path_factory.mktemp("train")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(4):
        picture = random.integers(0, 256, (24, 28, 3)).astype(np.uint8)
        write_png(folder / "photos" / f"{number}.png", picture)
    root, cache = folder / "set", folder / "cache"
    write_synth(folder / "photos", root, compositions=("low", "haze"), test_share=0.25)
    samples = load_dataset("cdd11", "train", root)
    place = store_path("cdd11", "train", "oracle", root=cache)
    build_cache(samples, load_guide("oracle"), ("whole@16",), place)
    return ["--root", str(root), "--cache", str(cache)]


def test_print_config_is_a_recipe_that_loads(capsys, tmp_path):
    assert run(["train", "--recipe", "demo", "--set", "train.seed=3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["train"]["seed"] == 3
    (tmp_path / "again.yaml").write_text(printed)
    assert run(["train", "--recipe", str(tmp_path / "again.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("value", ["{low: 2, low: 3}", "{low: 2,\n low: 3}"])
def test_an_override_with_a_key_twice(value, capsys):
    assert run(["train", "--set", f"data.repeats={value}", "--print-config"]) == 2
    assert "--set data.repeats has the key low twice" in capsys.readouterr().err


def test_the_same_override_twice_is_said(capsys):
    sets = ["--set", "train.seed=1", "--set", "train.seed=2"]
    assert run(["train", *sets, "--print-config", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["train"]["seed"] == 2
    assert "train.seed is set more than once; the last value counts" in printed.err


def test_a_recipe_with_a_block_twice(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(
        "base: demo\ntrain:\n  max_steps: 500\ndata:\n  augment: false\ntrain:\n  seed: 1\n"
    )
    assert run(["train", "--recipe", str(tmp_path / "r.yaml"), "--print-config"]) == 2
    assert "has the key train twice, in line 2 and in line 6" in capsys.readouterr().err


def test_print_config_as_json(capsys):
    assert run(["train", "--print-config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["num_experts"] == 8


def test_an_unknown_key_is_wrong_usage_with_a_suggestion(capsys):
    assert run(["train", "--recipe", "demo", "--set", "model.num_expert=4"]) == 2
    assert "did you mean model.num_experts" in capsys.readouterr().err


def test_a_missing_cache_exits_3_before_anything_is_written(capsys, sources, tmp_path):
    words = ["train", "--recipe", "demo", *SETS, "--root", sources[1]]
    code = run([*words, "--cache", str(tmp_path / "no"), "--out", str(tmp_path / "run")])
    assert code == 3
    told = capsys.readouterr().err
    assert "mmfe cache build --dataset cdd11 --split train --guide oracle" in told
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_the_plan_and_makes_no_step(capsys, sources, tmp_path):
    words = ["train", "--recipe", "demo", *SETS, *sources, "--out", str(tmp_path / "run")]
    assert run([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 3
    assert plan["images"] == 6
    assert plan["stages"][0]["views"] == ["whole@16"]
    assert plan["stages"][0]["memory"] > plan["parameters"] * 16
    assert run([*words, "--dry-run"]) == 0
    assert "whole@16" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("batches", "wanted"), [((16, 16), 8), ((4, 2), 2), ((12, 6), 6), ((4, 3), None)]
)
def test_a_dry_run_advises_parts_that_every_stage_has(
    capsys, sources, monkeypatch, batches, wanted
):
    monkeypatch.setattr("mmfe_cli.train._MUCH", 0)
    each = ", ".join(f"{{epochs: 1, resolution: 16, batch_size: {size}}}" for size in batches)
    words = ["train", "--recipe", "demo", *SETS, "--set", f"train.stages=[{each}]", *sources]
    code = run([*words, "--dry-run"])  # 2 where a batch is larger than the set
    told = " ".join(capsys.readouterr().out.split())
    assert "less memory, same result: --set train." in told
    assert ("train.accumulate" in told) == (wanted is not None)
    if wanted is not None:
        assert f"--set train.accumulate={wanted}," in told
        assert run([*words, "--set", f"train.accumulate={wanted}", "--dry-run"]) == code


def test_a_dry_run_of_what_cannot_run_exits_as_the_run_would(capsys, tmp_path, sources):
    words = ["train", "--recipe", "demo", *SETS, "--root", sources[1], "--cache", str(tmp_path)]
    assert run([*words, "--dry-run", "--json"]) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["exit_code"] == 3
    assert told.err.count("there is no cache at") == 1
    words = ["train", "--recipe", "demo", "--root", str(tmp_path / "none"), "--dry-run"]
    assert run(words) == 1  # what needs no data is said all the same
    found = capsys.readouterr()
    assert "samples          unknown\n" in found.out and "is not there" in found.err


@pytest.fixture
def finished(capsys, sources, tmp_path):
    """The words of a run of three steps that has ended, and its folder."""
    words = ["train", "--recipe", "demo", *SETS, *sources]
    assert run([*words, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    return words, tmp_path / "run"


def test_a_dry_run_is_refused_where_the_run_is(capsys, finished, tmp_path):
    words, out = finished
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "other" / "model").mkdir(parents=True)
    versions = json.loads((out / "versions.json").read_text())
    (out / "checkpoints" / "step-00000009.ckpt").write_text("damaged")

    def code_of(*more):
        codes = [run([*words, *more, *mode]) for mode in (["--dry-run"], [])]
        told = capsys.readouterr().err
        return codes, told

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for more, code, said in (
        (["--out", str(out), "--set", "train.seed=1"], 2, "holds a run of another recipe"),
        (["--out", str(out), "--resume", str(tmp_path / "no.ckpt")], 2, "no such checkpoint"),
        (["--out", str(out), "--resume", str(file)], 2, "checkpoint cannot be read"),
        (["--out", str(out), "--init-from", "mmfe-small"], 2, "did not begin with the weights"),
        (["--out", str(tmp_path / "other")], 2, "is not the folder of a run"),
        (["--out", str(file)], 1, "a file where one of its folders should be"),
    ):
        codes, told = code_of(*more)
        assert (codes, told.count(said)) == ([code, code], 2), more
    (out / "versions.json").write_text(json.dumps(versions | {"cache": {"sample_count": 3}}))
    codes, told = code_of("--out", str(out))
    assert codes == [3, 3] and told.count("not the one that this run began with") == 2
    (out / "versions.json").write_bytes(before[out / "versions.json"])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    # What a run would remove refuses nothing.
    anew = ["--out", str(out), "--set", "train.seed=1", "--resume", "none", "--dry-run"]
    assert run([*words, *anew]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_reports_and_a_second_one_goes_on(capsys, sources, tmp_path):
    words = ["train", "--recipe", "demo", *SETS, *sources, "--out", str(tmp_path / "run")]
    assert run([*words, "--json"]) == 0
    first = capsys.readouterr()
    report = json.loads(first.out)
    assert report["completed"]
    assert report["guide_calls"] == 0
    assert report["steps"] == report["total_steps"] == 3
    assert report["checkpoint"] == str(tmp_path / "run" / "model")
    assert "guide called 0 times" in first.err
    assert run(words) == 0
    again = capsys.readouterr()
    assert "nothing to do" in again.err
    assert str(tmp_path / "run" / "model") in again.out


def test_the_default_folder_bears_the_recipe_and_its_overrides(tmp_path, monkeypatch, sources):
    from mmfe_restore.training.run_dir import default_folder

    monkeypatch.chdir(tmp_path)
    assert run(["train", "--recipe", "demo", *SETS, *sources]) == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith("demo-")
    assert default_folder("table4a/mofe", []).as_posix() == "runs/table4a-mofe"
    assert default_folder("demo", ["a=1", "b=2"]) == default_folder("demo", ["b=2", "a=1"])


def test_the_default_folder_of_a_file_is_its_name(tmp_path, monkeypatch):
    from mmfe_restore.training.run_dir import default_folder

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "old-b").mkdir(parents=True)
    (tmp_path / "runs" / "old-b" / "recipe.yaml").write_text("")
    for name in ("my.yaml", "./my.yaml", "/abs/my.yaml", "old/my.yaml"):
        assert default_folder(name, []).as_posix() == "runs/my"
        hashed = default_folder(name, ["a=1"])
        assert hashed == default_folder("my.yaml", ["a=1", "train.log_every=1"])
        assert hashed.name.startswith("my-")
    assert default_folder("old/b.yaml", []).as_posix() == "runs/old-b"  # of before


def test_a_seed_that_torch_cannot_take(capsys):
    assert run(["train", "--set", f"train.seed={2**64 - 1}", "--print-config"]) == 0
    assert run(["train", "--set", f"train.seed={2**64}", "--print-config"]) == 2
    assert "train.seed" in capsys.readouterr().err


def test_a_missing_checkpoint_is_wrong_usage(capsys, sources, tmp_path):
    words = ["train", "--recipe", "demo", *SETS, *sources, "--out", str(tmp_path / "run")]
    assert run([*words, "--resume", str(tmp_path / "none.ckpt")]) == 2
    assert "no such checkpoint" in capsys.readouterr().err


def test_beginning_anew_leaves_a_strangers_folders_alone(capsys, sources, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    words = ["train", "--recipe", "demo", *SETS, *sources]
    assert run([*words, "--out", str(tmp_path), "--resume", "none"]) == 2
    assert "not the folder of a run" in capsys.readouterr().err
    assert (tmp_path / "model" / "thesis.txt").exists()


def test_an_unfinished_run_names_the_command_that_ends_it(capsys, sources, tmp_path):
    out = tmp_path / "run"
    assert run(["train", "--recipe", "demo", *SETS, *sources, "--out", str(out)]) == 0
    (out / "model").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert run(["eval", "--checkpoint", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"mmfe train --recipe '{out}/recipe.yaml' --out '{out}'" in said
    assert run(["train", "--recipe", f"{out}/recipe.yaml", "--out", str(out), *sources]) == 0
    assert (out / "model" / "config.json").exists()
