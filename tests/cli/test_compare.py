"""`mmfe compare`: bad input (what it computes is tested beside its library)."""

from __future__ import annotations

import json
from pathlib import Path

from mmfe_cli.app import run

ABOUT = {"dataset": "d", "split": "test", "protocol": "mmfe", "crop": "whole image",
         "rounding": "none", "classes": {"low": {}}}  # fmt: skip


def report(folder, psnr):
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(ABOUT))
    lines = [f"low/{i},low,{i},8,8,{value}" for i, value in enumerate(psnr)]
    header = "id,label,scene,height,width,psnr"
    (folder / "per_image.csv").write_text("\n".join([header, *lines]) + "\n")
    return str(folder)


def test_a_gain_is_no_loss(tmp_path, capsys):
    a, b = report(tmp_path / "a", [20.0, 21.0]), report(tmp_path / "b", [20.5, 23.0])
    assert run(["compare", a, b]) == 0
    shown = capsys.readouterr()
    assert "largest gains of B: low/1 +2.00, low/0 +0.50" in shown.out
    assert "largest losses of B: none" in shown.out
    assert "2 scenes only" in shown.err


def test_ssim_is_the_window_that_the_protocol_publishes(tmp_path, capsys):
    a, b = report(tmp_path / "a", [20.0]), report(tmp_path / "b", [20.0])
    for folder in (a, b):
        file = Path(folder) / "per_image.csv"
        text = file.read_text().replace("psnr", "psnr,ssim_uniform,ssim_gaussian")
        file.write_text(text.replace("20.0", "20.0,0.5,0.75"))
    assert run(["compare", a, b, "--figure", "ssim", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["figure"], found["average"]["a"]) == ("ssim_gaussian", 0.75)
    assert run(["compare", a, b, "--figure", "lpips"]) == 2
    said = capsys.readouterr().err
    assert "psnr | ssim_uniform | ssim_gaussian" in said
    assert "--metric lpips" in said


def test_of_a_distance_less_is_better(tmp_path, capsys):
    a, b = report(tmp_path / "a", [0.5, 0.4]), report(tmp_path / "b", [0.3, 0.45])
    for folder in (a, b):
        file = Path(folder) / "per_image.csv"
        file.write_text(file.read_text().replace("psnr", "lpips"))
    assert run(["compare", a, b, "--figure", "lpips"]) == 0
    shown = capsys.readouterr().out
    assert "largest gains of B: low/0 -0.2000" in shown
    assert "largest losses of B: low/1 +0.0500" in shown
    assert "lower is better" in shown


def test_a_demos_run_leads_to_its_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "demo" / "runs" / "demo" / "model"
    model.mkdir(parents=True)
    for name, checkpoint in (("report", "demo/runs/demo/model"), ("other", "demo/runs/x/model")):
        folder = Path(report(tmp_path / "demo" / name, [20.0]))
        about = json.loads((folder / "metrics.json").read_text()) | {"checkpoint": checkpoint}
        (folder / "metrics.json").write_text(json.dumps(about))
    assert run(["compare", "demo/runs/demo", "demo/other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == "demo/report"


def test_a_folder_without_an_evaluation(tmp_path, capsys):
    assert run(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "mmfe eval" in capsys.readouterr().err


def test_what_is_left_out_stands_beside_the_figure(tmp_path, capsys):
    a = report(tmp_path / "a", ["inf"] * 9 + [20.0])
    b = report(tmp_path / "b", [30.0] * 9 + [20.3])
    assert run(["compare", a, b]) == 0
    shown = capsys.readouterr()
    row = next(line for line in shown.out.splitlines() if line.startswith("│ average"))
    assert "+0.30" in row
    assert "9 of 10" in row
    assert "low: 9 of 10 images left out" in shown.err
