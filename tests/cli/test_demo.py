"""The whole job, run as a newcomer runs it, and what it says of bad input."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mmfe_cache.datasets.demo_photographs import split_into_parts
from mmfe_cache.errors import UsageError
from mmfe_cli.app import run

COMPOSITIONS = {
    "low", "haze", "rain", "snow", "low_haze", "low_rain", "low_snow", "haze_rain", "haze_snow",
    "low_haze_rain", "low_haze_snow",
}  # fmt: skip
FIGURES = {"input_psnr", "psnr", "ssim_uniform", "ssim_gaussian"}


@pytest.fixture(scope="module")
def demo(
    tmp_path_factory: pytest.TempPathFactory, start_forked: Any
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "mmfe").write_text("from mmfe_cli.app import main; main()")
    out = folder / "demo"
    return out, start_forked(folder / "mmfe", "demo", "--fast", "--json", "--out", out)(timeout=800)


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestFastDemo:
    def test_reports_every_composition_and_the_mean_of_class_means(self, demo):
        _, done = demo
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert set(result["classes"]) == COMPOSITIONS
        for row in (*result["classes"].values(), result["average"]):
            assert row.keys() >= FIGURES
            assert all(math.isfinite(row[name]) for name in FIGURES)
        for name in FIGURES:
            mean = sum(row[name] for row in result["classes"].values()) / len(COMPOSITIONS)
            assert result["average"][name] == pytest.approx(mean, abs=1e-6)

    def test_gains_on_average_over_its_input(self, demo):
        average = json.loads(demo[1].stdout)["average"]
        assert average["psnr"] > average["input_psnr"] + 1.0

    def test_counts_the_guide_in_the_build_only(self, demo):
        out, done = demo
        calls = json.loads(done.stdout)["guide_calls"]
        train = len(list((out / "cdd11" / "train").glob("[!c]*/*.png")))
        test = len(list((out / "cdd11" / "test").glob("[!c]*/*.png")))
        # One view, which training and evaluation read.
        assert calls == {"build": train + test, "train": 0, "ablation": 0}

    def test_leaves_every_product_where_it_says(self, demo):
        out, done = demo
        result = json.loads(done.stdout)
        assert Path(result["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
        for name in ("degraded", "restored", "clean"):
            assert Path(result["restored"][name]).is_file()
        assert (out / "runs" / "demo" / "model" / "model.safetensors").is_file()

    def test_shows_the_commands_it_runs(self, demo):
        said = demo[1].stderr.splitlines()
        assert said[0].startswith("threads: ")
        shown = [line for line in said if line.startswith("$ mmfe ")]
        verbs = [" ".join(line.split()[2:4]) for line in shown]
        assert verbs[:2] == ["data synth", "cache build"]
        assert [verb.split()[0] for verb in verbs[2:5]] == ["train", "train", "eval"]

    def test_a_second_time_reuses_everything(self, demo, capsys):
        out, first = demo
        runs = [*out.glob("runs/*/metrics.csv"), *out.glob("runs/*/model/model.safetensors")]
        before = {path: path.stat().st_mtime_ns for path in runs}
        assert len(before) == 4
        assert run(["demo", "--fast", "--json", "--out", str(out)]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["guide_calls"] == {"build": 0, "train": 0, "ablation": 0}
        assert result["average"] == json.loads(first.stdout)["average"]
        assert {path: path.stat().st_mtime_ns for path in runs} == before

    def test_refuses_a_folder_of_other_settings(self, demo, capsys):
        out, _ = demo
        assert run(["demo", "--out", str(out)]) == 2
        assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_exits_130_says_once_how_to_go_on_and_leaves_nothing_half_written(
    tmp_path, start_forked, told
):
    out = tmp_path / "demo"
    (tmp_path / "mmfe").write_text("from mmfe_cli.app import main; main()")
    wait = start_forked(tmp_path / "mmfe", "demo", "--fast", "--out", out)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(out.glob("cdd11/**/*.png")):
        time.sleep(0.05)
    os.kill(wait.pid, told)
    done = wait()
    shown = done.stderr
    assert done.returncode == 130, shown
    assert shown.count("interrupted; run the same command again") == 1
    assert "Traceback" not in shown
    from PIL import Image

    for path in out.rglob("*.png"):
        Image.open(path).load()


def test_photos_folder_without_enough_photographs_is_refused(tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert run(["demo", "--photos", str(folder), "--out", str(tmp_path / "demo")]) == 1
    assert "there is no photograph" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("emulated", [True, False])
def test_a_seed_and_the_precision_reach_training(tmp_path, monkeypatch, capsys, emulated):
    import typer

    from mmfe_cli.demo import _Steps

    given: dict[str, tuple[str, ...]] = {}

    def note(self: _Steps, name: str, *arguments: str | Path) -> dict[str, int]:
        given[name] = tuple(map(str, arguments))
        if name == "eval":
            raise typer.Exit(1)
        return {"guide_calls": 0}

    monkeypatch.setattr(_Steps, "run", note)
    monkeypatch.setattr("mmfe_cache.machine.emulates_bf16", lambda: emulated)
    out = ["--out", str(tmp_path / "demo")]
    assert run(["demo", "--seed", "7", *out]) == 1
    synth = given["data synth"]
    assert synth[synth.index("--seed") + 1] == "7"
    assert "train.seed=7" in given["train"]
    assert "train.seed=7" in given["ablation"]
    for name in ("train", "ablation"):
        assert ("train.precision=32" in given[name]) is emulated
    assert run(["demo", *out]) == 2
    assert "other settings" in capsys.readouterr().err


def test_photographs_that_were_added_later_do_not_mix_the_sets(tmp_path):
    from mmfe_cli.demo import _copy_photographs

    photos, folder = tmp_path / "photos", tmp_path / "demo" / "photos"
    photos.mkdir()

    def add(*names: str) -> None:
        for name in names:
            (photos / f"{name}.png").write_bytes(name.encode())

    def copied() -> dict[str, set[str]]:
        return {part.name: {path.stem for path in part.iterdir()} for part in folder.iterdir()}

    add("b", "c", "d")
    begun = split_into_parts(photos)
    _copy_photographs(begun, folder)
    before = copied()
    (folder / "train" / "._b.png").write_bytes(b"")  # as a Mac leaves on other systems' disks
    _copy_photographs(begun, folder)  # of an interrupted demo that goes on
    (folder / "train" / "._b.png").unlink()
    parts = {part: {one.name for one in getattr(begun, part)} for part in before}
    assert copied() == before == parts
    add("e", "f", "g", "h")
    with pytest.raises(UsageError, match="a demo of other photographs") as refused:
        _copy_photographs(split_into_parts(photos), folder)
    assert str(folder / "own" / "d.png") in str(refused.value)
    assert copied() == before


def test_a_damaged_record_of_the_demo_is_named(tmp_path, capsys):
    (tmp_path / "demo.json").write_text('{"photos": nu')
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / 'demo.json'} cannot be read" in capsys.readouterr().err
    assert run(["demo", "--seed", str(2**32), "--out", str(tmp_path)]) == 2
    assert "--seed" in capsys.readouterr().err


def test_missing_photos_folder_is_refused(tmp_path, capsys):
    assert run(["demo", "--photos", str(tmp_path / "no"), "--out", str(tmp_path / "demo")]) == 1
    assert str(tmp_path / "no") in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert "holds no demo" in capsys.readouterr().err


def test_what_the_demo_tells_of_its_gain(capsys):
    from mmfe_cli.demo import _tell

    # Means over different images: their difference would read +12.63 dB.
    row = {"input_psnr": 20.0, "psnr": 32.63, "ssim_uniform": 0.9, "ssim_gaussian": 0.9,
           "gain": 0.3, "gain_images": 1, "gain_left_out": 9}  # fmt: skip
    _tell(
        {
            "classes": {"low": row},
            "average": row,
            "guide_calls": {"build": 1, "train": 0, "ablation": 0},
            "run": "demo/runs/demo",
            "report": "report.html",
            "restored": {"composition": "haze", "degraded": "bad.png", "restored": "own.png"},
            "seconds": {"total": 1.0},
        }
    )
    shown = capsys.readouterr().out
    assert "gain +0.30 dB" in shown
    for path in ("report.html", "bad.png", "own.png", "--checkpoint demo/runs/demo"):
        assert path in shown
    assert shown.count("9 of 10") == 3
    assert "12.63" not in shown
