"""`mmfe guide`: what it prints, what it writes, how it fails."""

import json

import numpy as np
import pytest
from PIL import Image

from mmfe_cli.app import run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(3):
        coarse = Image.fromarray(draw.integers(30, 226, (6, 8, 3)).astype(np.uint8))
        coarse.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_list_says_everything_about_every_guide(capsys):
    assert run(["guide", "list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    families = {row["family"]: row["spelled"] for row in said["families"]}
    assert families["timm"] == "timm:MODEL"
    guides = {row["name"]: row for row in said["guides"]}
    assert {row["family"] for row in guides.values()} <= set(families)
    assert list(guides) == [
        "qwen2.5-vl-3b",
        "qwen2.5-vl-7b",
        "fastvlm-0.5b",
        "fastvlm-1.5b",
        "scene",
        "prompt",
        "oracle",
    ]
    assert guides["scene"]["here"] is True
    assert guides["scene"]["dim"] == 128
    assert guides["qwen2.5-vl-3b"]["get"].startswith("hf download ")
    assert run(["guide", "list"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in guides)


@pytest.mark.parametrize("kind", ["qwen2.5-vl", "fastvlm"])
def test_make_tiny_writes_a_checkpoint_that_loads(tmp_path, capsys, kind):
    target = tmp_path / "toy"
    assert run(["guide", "make-tiny", str(target), "--kind", kind, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"out": str(target), "kind": kind, "dim": 64}
    from mmfe_cache.guides import load_guide

    found = load_guide(target, device="cpu").encode([np.zeros((64, 64, 3), np.uint8)])
    assert found.answer.shape == (1, 64)


def test_make_tiny_refuses_a_taken_place_and_an_unknown_kind(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(["guide", "make-tiny", str(tmp_path)]) == 2
    assert run(["guide", "make-tiny", str(tmp_path / "toy"), "--kind", "gpt"]) == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert "expected" in capsys.readouterr().err


def test_train_writes_a_guide_and_evaluate_measures_it(photos, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    command = ["-q", "guide", "train", str(photos), "--out", str(out), "--steps", "2"]
    assert run([*command, "--hold-out", "1", "--workers", "0", "--device", "cpu", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["photos"] == 2
    assert trained["steps"] == 2
    # Caches and networks that were made with it name its hash: it is not replaced.
    content = out.read_bytes()
    for kind in ("scene", "prompt"):
        assert run([*command, "--kind", kind]) == 2
        assert "is there already" in capsys.readouterr().err
    assert out.read_bytes() == content
    command = ["-q", "guide", "evaluate", str(photos), "--guide", str(out), "--view", "whole@64"]
    assert run([*command, "--device", "cpu", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["photos"] == 3
    assert set(scores["average_precision"]) == {"low", "haze", "rain", "snow"}
    assert 0 <= scores["mean_average_precision"] <= 1
    assert scores["dominant_samples"] > 0


def test_the_shipped_guide_is_measured_far_above_chance(photos, capsys):
    command = ["-q", "guide", "evaluate", str(photos), "--view", "whole@128", "--device", "cpu"]
    assert run([*command, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["mean_average_precision"] > 0.8
    assert scores["dominant_share"] > scores["chance"]
    assert run(command) == 0
    assert "mean average precision" in capsys.readouterr().out


def test_what_a_comparison_with_a_teacher_does_not_use_is_refused(photos, tmp_path, capsys):
    command = ["guide", "evaluate", "student.safetensors", "--teacher", "cache.zarr"]
    assert run([*command, "--view", "native", "--mask-share", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "got:      --view, --mask-share" in said
    assert run(["guide", "evaluate", str(photos), "--root", str(tmp_path)]) == 2
    assert "without --teacher" in capsys.readouterr().err


def test_maps_pages_and_made_sets_among_photographs_are_named(photos, tmp_path, capsys):
    """As by `data synth`: maps belong to the photographs that it would name so."""
    from mmfe_cache.datasets import write_synth

    write_synth(photos, photos / "set", compositions=["low"])
    (photos / "depth").mkdir()
    (photos / "b").mkdir()
    (photos / "1.png").rename(photos / "b" / "0.png")
    (photos / "2.png").unlink()
    page = Image.open(photos / "0.png").convert("RGB")
    page.save(photos / "0.tif", save_all=True, append_images=[page])
    (photos / "0.png").unlink()
    page.save(photos / "depth" / "0.png")
    command = ["-q", "guide", "evaluate", str(photos), "--depth", str(photos / "depth")]
    assert run([*command, "--view", "whole@64", "--device", "cpu"]) == 1
    assert "got:      b-0\n" in capsys.readouterr().err
    page.save(photos / "depth" / "b-0.tif", save_all=True, append_images=[page])
    assert run([*command, "--view", "whole@64", "--device", "cpu", "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["photos"] == 2
    said = " ".join(found.err.split())
    assert said.count("it holds 2 pages") == 2
    for name in ("0.tif", "depth/b-0.tif"):
        assert f"warning: {photos / name}: it holds 2 pages, of which the first is read" in said
    assert f"{photos / 'set'}: a set that `mmfe data synth` made" in said
    out = tmp_path / "x.safetensors"
    assert run(["guide", "train", str(photos / "set"), "--out", str(out)]) == 1
    assert "holds no clean photographs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "{photos}", "--out", "{out}/x.bin"], 2, ".safetensors"),
        (["train", "{photos}", "--out", "{out}/folder.safetensors"], 2, "is a folder"),
        (["train", "{photos}", "--out", "{photos}/0.png/x.safetensors"], 1, "0.png"),
        (
            ["train", "{photos}", "--out", "{out}/x.safetensors", "--depth", "{photos}"],
            2,
            "crops of photographs, which --depth does not fit",
        ),
        (
            ["train", "{photos}", "-o", "{out}/x.safetensors", "--dark-photos", "{photos}"],
            2,
            "got:      --dark-photos ",
        ),
        (["train", "{photos}", "--out", "{out}/x.safetensors", "--seed", f"{2**63}"], 2, "--seed"),
        (["make-tiny", "{out}/toy", "--seed", f"{2**64}"], 2, "--seed"),
        (["train", "{out}/none", "--out", "{out}/x.safetensors"], 1, "no such folder"),
        (["evaluate", "{out}/none"], 1, "no such folder"),
        (["evaluate", "{photos}", "--guide", "oracle"], 2, "sees no pictures"),
        (["evaluate", "{photos}", "--guide", "qwen2.5-vl-3b"], 1, "hf download"),
        (["evaluate", "{photos}", "--view", "half@3"], 2, "whole@r"),
        (["evaluate", "{photos}", "--guide", "nobody"], 2, "mmfe guide list"),
    ],
)
def test_mistakes_get_one_clear_message(photos, tmp_path, capsys, arguments, code, said):
    (tmp_path / "folder.safetensors").mkdir()
    filled = [text.format(photos=photos, out=tmp_path) for text in arguments]
    assert run(["guide", *filled]) == code
    message = capsys.readouterr().err
    assert said in message
    assert "training scene" not in message  # said before minutes of training, not after
    assert not [path for path in tmp_path.glob("*.safetensors") if path.is_file()]
