"""`mmfe eval`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmfe_cache.degradations import COMPOSITIONS
from mmfe_cli import output
from mmfe_cli.app import run
from mmfe_cli.eval import _default_out
from mmfe_restore.model import Restorer
from mmfe_restore.model.folders import DEFAULT, model_folder

from ..small import small_recipe


def write_cdd11(root):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("clear", *COMPOSITIONS):
            (root / split / name).mkdir(parents=True)
            for scene in range(1):
                pixels = random.integers(0, 256, (32, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{scene:05d}.png")
    return root


def write_run(folder, **model):
    recipe = small_recipe(**model)
    torch.manual_seed(0)
    Restorer(recipe.model).save_pretrained(folder / "model", recipe=recipe)
    return folder


UNGUIDED = {"experts": "none", "encoder_guidance": "none", "decoder_guidance": "none"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    write_cdd11(folder / "data")
    write_run(folder / "runs" / "plain", **UNGUIDED)
    return folder


def arguments(place, *more):
    return [
        "eval",
        "--checkpoint",
        str(place / "runs" / "plain"),
        "--root",
        str(place / "data"),
        *more,
    ]


def test_json_table_and_files(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(output, "_threads_taken", False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run(arguments(place, "--out", str(tmp_path / "a"), "--json")) == 0
    captured = capsys.readouterr()
    assert "threads: 1 (OMP_NUM_THREADS says so)" in captured.err
    printed = json.loads(captured.out)
    assert list(printed["classes"]) == list(COMPOSITIONS)
    assert printed["guide_calls"] == 0
    assert (
        json.loads((tmp_path / "a" / "metrics.json").read_text())["average"] == printed["average"]
    )
    assert len((tmp_path / "a" / "per_image.csv").read_text().splitlines()) == 12
    assert run(arguments(place, "--out", str(tmp_path / "b"), "--report")) == 0
    shown = capsys.readouterr().out
    assert "average" in shown
    assert "MoCE-IR" in shown
    told = "crop: whole image; attention: whole images; range: 0 to 1, restored images clamped"
    assert f"{told}; rounding: none" in shown
    assert "Ours: protocol mmfe, whole image, range 0 to 1, rounding none, no guide" in shown
    assert run(arguments(place, "--out", str(tmp_path / "c"), "--json", "--report")) == 0
    both = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in both["published"]["rows"] if row["ours"]] == [
        f"ours: {printed['recipe']} on cdd11/test"
    ]
    assert "published" not in printed
    # The same test again differs in nothing but the time it took.
    first, second = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in "ab")
    assert first["images"] == second["images"]
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["average"]["mean"] == 0


def test_the_gain_and_what_it_leaves_out_are_printed(place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    low = tmp_path / "data" / "test" / "low" / "00000.png"
    shutil.copyfile(tmp_path / "data" / "test" / "clear" / "00000.png", low)
    command = arguments(place, "--out", str(tmp_path / "r"))
    command[command.index("--root") + 1] = str(tmp_path / "data")
    assert run(command) == 0
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.startswith("│")]
    rows = {line.split("│")[1].strip(): line for line in lines}
    about = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert f" {about['average']['gain']:+.2f} │ 1 of 11 " in rows["average"]
    assert " – │ 1 of 1 " in rows["low"]
    assert "low: 1 of 1 images left out of the gain" in shown.err


@pytest.mark.parametrize("more", [[], ["--report", "--json"]])
def test_the_format_of_a_table_that_is_not_printed(place, tmp_path, capsys, more):
    command = arguments(place, "--out", str(tmp_path / "r"), "--format", "latex", *more)
    assert run(command) == 2
    assert "--format latex with" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_is_cut_on_a_narrow_terminal(place, tmp_path, capsys, monkeypatch, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(arguments(place, "--out", str(tmp_path / "a"), "--report")) == 0
    whole = re.findall(r"[\d.]*\d", capsys.readouterr().out)
    monkeypatch.setenv("COLUMNS", str(width))
    assert run(arguments(place, "--out", str(tmp_path / "b"), "--report")) == 0
    shown = capsys.readouterr().out
    assert set(whole) <= set(re.findall(r"[\d.]*\d", shown))
    table = [line for line in shown.splitlines() if line.startswith(("┃", "│"))]
    assert max(map(len, table)) <= width
    assert "…" not in "".join(table)


def test_a_report_that_exists_is_kept_without_force(place, capsys):
    assert run(arguments(place)) == 0
    page = place / "runs" / "plain" / "eval" / "cdd11-test" / "report.html"
    before = page.read_bytes()
    assert run(arguments(place)) == 2
    assert "--force" in capsys.readouterr().err
    assert page.read_bytes() == before


@pytest.mark.parametrize("table_format", ["markdown", "latex"])
def test_other_formats(place, tmp_path, capsys, table_format):
    more = ["--report", "--format", table_format, "--out", str(tmp_path / "r")]
    assert run(arguments(place, *more)) == 0
    mark = "| MoCE-IR |" if table_format == "markdown" else r"\toprule"
    assert mark in capsys.readouterr().out


def test_a_checkpoint_without_its_guides_cache_exits_3(place, tmp_path, capsys):
    write_run(tmp_path / "guided")
    code = run(
        ["eval", "--checkpoint", str(tmp_path / "guided"), "--root", str(place / "data"),
         "--cache", str(tmp_path / "none"), "--out", str(tmp_path / "r")]
    )  # fmt: skip
    assert code == 3
    message = capsys.readouterr().err
    assert "mmfe cache build --dataset cdd11 --split test --guide scene" in message
    assert not (tmp_path / "r").exists()


def test_an_empty_class_is_an_error(place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    for path in (tmp_path / "data" / "test" / "haze_snow").iterdir():
        path.unlink()
    code = run(
        ["eval", "--checkpoint", str(place / "runs" / "plain"), "--root", str(tmp_path / "data"),
         "--out", str(tmp_path / "r")]
    )  # fmt: skip
    assert code == 1
    assert "haze_snow" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--protocol", "psnr"], 2, "promptir"),
        (["--format", "word"], 2, "latex"),
        (["--dataset", "cdd12"], 2, "cdd11"),
        (["--view", "foo"], 2, "whole@r"),
        (["--window", "336.5"], 2, "a multiple of 48"),
        (["--window", "0"], 2, "a multiple of 48"),
        (["--no-guide", "--cache", "nowhere"], 2, "--no-guide and --cache"),
        (["--guide", "none", "--view", "whole@64"], 2, "--no-guide and --view"),
    ],
)
def test_wrong_options(place, tmp_path, capsys, more, code, said):
    assert run(arguments(place, "--out", str(tmp_path / "r"), *more)) == code
    assert said in capsys.readouterr().err


def test_no_checkpoint(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["eval"]) == 2
    assert "mmfe train" in capsys.readouterr().err
    (tmp_path / "stopped" / "checkpoints").mkdir(parents=True)
    assert run(["eval", "--checkpoint", "stopped"]) == 2
    assert "not finished" in capsys.readouterr().err


def test_the_newest_finished_run_is_the_default(place, tmp_path, monkeypatch, capsys):
    import os

    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "old", **UNGUIDED)
    os.utime(tmp_path / "runs" / "old" / "model" / "config.json", (1, 1))
    write_run(tmp_path / "runs" / "new", **UNGUIDED)
    assert run(["eval", "--root", str(place / "data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == "runs/new/model"


def test_no_report_goes_into_the_package(tmp_path, monkeypatch):
    """Nor where a folder in the working directory has a shipped network's name."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        found = _default_out(model_folder(DEFAULT), DEFAULT, "cdd11", "test")
        assert found == Path("runs", DEFAULT, "eval", "cdd11-test")
        (tmp_path / DEFAULT).mkdir(exist_ok=True)
    # A folder is meant by its path, and has its reports beside it.
    own = write_run(tmp_path / DEFAULT, **UNGUIDED) / "model"
    assert _default_out(own, f"./{DEFAULT}", "cdd11", "test") == own.parent / "eval" / "cdd11-test"
