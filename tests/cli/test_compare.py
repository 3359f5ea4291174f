"""`mmfe compare`: bad input (what it computes is tested beside its library)."""

from __future__ import annotations

import json

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
