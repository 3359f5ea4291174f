from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage import data as photographs

from mmfe_cache.degradations import degrade
from mmfe_cache.images import read_rgb8, write_png
from mmfe_cli.app import run


@pytest.mark.parametrize("guide", [[], ["--guide", "none"]])
def test_a_photograph_with_its_guide_and_without(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], guide: list[str]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (21, 33, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", image)
    target = tmp_path / "out.png"
    arguments = ["restore", str(tmp_path / "in.png"), "-o", str(target), "--json"]
    assert run([*arguments, "--checkpoint", str(model.parent), *guide]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["restored"][0]["output"] == str(target)
    assert found["guide"] == (None if guide else "scene")
    assert np.array_equal(read_rgb8(target), image)


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--guide", "qwen2.5-vl-3b"], 2, "width"),
        (["--tile", "7"], 2, "--tile"),
        (["--window", "100"], 2, "a multiple of 48"),
        (["--guide", "oracle"], 2, "to do:    restore without it: --guide none"),
        (["--checkpoint", "/nowhere"], 2, "no checkpoint"),
        (["missing.png"], 1, "missing.png"),
    ],
)
def test_what_goes_wrong_is_said(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    code: int,
    words: str,
) -> None:
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), dtype=np.uint8))
    arguments = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out")]
    assert run([*arguments, "--checkpoint", str(model), *extra]) == code
    assert words in capsys.readouterr().err


def test_a_slow_precision_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), dtype=np.uint8))
    for emulated in (True, False):
        monkeypatch.setattr("mmfe_cache.machine.emulates_bf16", lambda told=emulated: told)
        for precision in ("bf16", "float16", "32"):
            words = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "o"), "--force"]
            assert run([*words, "--checkpoint", str(model), "--precision", precision]) == 0
            slow = "no products of half precision" in capsys.readouterr().err
            assert slow == (emulated and precision != "32")


def test_without_a_checkpoint_the_network_of_the_package_is_used_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # no runs/ here
    image = np.random.default_rng(1).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", image)
    assert run(["restore", "in.png", "--json"]) == 0  # nor is the folder named
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["checkpoint"] == "mmfe-small"
    assert Path(found["restored"][0]["output"]) == Path("restored/in.png")
    assert Path("restored/in.png").is_file()
    assert found["attention_window"] == 384
    assert run(["restore", "in.png", "--window", "off", "-o", "whole", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["attention_window"] is None
    assert found["guide"] == "scene"
    seen = found["restored"][0]["seen"]
    assert set(seen) == {"low", "haze", "rain", "snow"}
    assert all(0 <= severity <= 1 for severity in seen.values())
    assert "mmfe-small" in captured.err


def test_strength_runs_from_the_input_to_the_restorer(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    write_png(tmp_path / "in.png", image)
    found: dict[str, np.ndarray] = {}
    for strength in ("0", "0.5", "1"):
        target = tmp_path / f"{strength}.png"
        arguments = ["restore", str(tmp_path / "in.png"), "-o", str(target)]
        assert run([*arguments, "--strength", strength]) == 0
        found[strength] = read_rgb8(target).astype(float)
    assert np.array_equal(found["0"], image)
    assert not np.array_equal(found["1"], image)
    assert np.abs(found["0.5"] - (found["1"] + image) / 2).max() <= 1
    assert run(["restore", str(tmp_path / "in.png"), "-o", "x", "--strength", "2"]) == 2


def test_only_leaves_the_rest_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = np.asarray(photographs.chelsea())[:160, :208]
    dark = degrade(clean, "low_rain", seed_parts=("only",)).image
    write_png(tmp_path / "in.png", dark)
    found: dict[str, np.ndarray] = {}
    for name, extra in (("all", []), ("rain", ["--only", "rain"]), ("low", ["--only", "low"])):
        target = tmp_path / f"{name}.png"
        arguments = ["restore", str(tmp_path / "in.png"), "-o", str(target), "--json", *extra]
        assert run(arguments) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed.get("only") == (None if name == "all" else [name])
        assert printed["restored"][0]["seen"]["low"] > 0.3  # what is seen, not what is asked
        found[name] = read_rgb8(target).astype(float)
    lifted = found["all"].mean() - dark.mean()
    assert lifted > 20
    assert abs(found["rain"].mean() - dark.mean()) < 0.2 * lifted
    assert found["low"].mean() - dark.mean() > 0.6 * lifted


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--only", "rain,fog"], "fog"),
        (["--only", ","], "no degradation"),
        (["--only", "rain", "--no-guide"], "without a guide"),
    ],
)
def test_only_needs_known_degradations_and_a_guide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), dtype=np.uint8))
    assert run(["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out"), *extra]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_guide_in_another_state_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["guide_fingerprint"] = {"guide.name": "scene", "guide.weights": "others"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    write_png(tmp_path / "in.png", np.zeros((8, 8, 3), dtype=np.uint8))
    arguments = ["restore", str(tmp_path / "in.png"), "-o", str(tmp_path / "out")]
    assert run([*arguments, "--checkpoint", str(tmp_path / "model")]) == 1
    assert "weights: 'others' /" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
