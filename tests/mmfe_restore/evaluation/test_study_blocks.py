"""The guidance study's blocks: rows are compared within a machine and a seed alone."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.guidance_blocks import (
    Result,
    comparisons,
    line,
    main,
    pairs_of,
    read_blocks,
    results_of,
)


def result(row: str, guide: str | None, seed: int, psnr: float, budget: int = 1) -> Result:
    scenes = {f"s{k}": psnr + k - 1 for k in range(3)}
    return Result(row, guide, budget, seed, 1000, psnr, scenes)


def test_pairs_share_block_seed_and_budget():
    blocks = {
        "a": [
            result("full", "scene", 0, 21.0),
            result("full", "scene", 1, 22.0),
            result("baseline", None, 0, 20.0),
            result("baseline", None, 1, 19.0, budget=2),
        ],
        "b": [result("full", "scene", 1, 30.0), result("baseline", None, 1, 28.0)],
        "c": [result("baseline", None, 0, 0.0)],
    }
    pairs = pairs_of(blocks, ("full", "scene"), ("baseline", "scene"), 1)
    assert [(name, one.psnr, two.psnr) for name, one, two in pairs] == [
        ("a", 21.0, 20.0),
        ("b", 30.0, 28.0),
    ]
    (found,) = comparisons(blocks)
    assert found["difference"] == pytest.approx(1.5)
    # Three scenes that gain 1.5 each: 2 of 8 choices of signs are as far from 0; 2 of 4 of pairs.
    assert (found["p_scenes"], found["p_pairs"]) == (pytest.approx(2 / 8), pytest.approx(2 / 4))
    # 1 and 2: 1.5 ± 12.706 · 0.7071 / √2, by a table of Student's distribution.
    assert found["interval_pairs"] == pytest.approx([1.5 - 6.353, 1.5 + 6.353], abs=1e-3)
    assert line(found) == (
        "full of scene less baseline of scene, ×1: +1.50 dB in 2 pairs; over 3 scenes +1.50 to "
        "+1.50, p = 0.250; over pairs -4.85 to +7.85, p = 0.500"
    )


def test_test_sets_are_compared_apart_and_the_first_comes_first():
    full, baseline = result("full", "scene", 0, 21.0), result("baseline", None, 0, 20.0)
    elsewhere = [replace(full, psnr=18.0, test="scenes"), replace(baseline, test="scenes")]
    first, second = comparisons({"a": [*elsewhere, full, baseline]})
    assert (first["test"], first["difference"]) == ("test", pytest.approx(1.0))
    assert (second["test"], second["difference"]) == ("scenes", pytest.approx(-2.0))
    assert line(second).startswith("full of scene less baseline of scene, ×1 on scenes: -2.00 dB")


def test_guides_are_compared_where_both_ran():
    blocks = {"a": [result("full", "prompt", 0, 20.0), result("full", "scene", 0, 20.5)]}
    (found,) = comparisons(blocks)
    assert (found["one"], found["other"]) == (["full", "prompt"], ["full", "scene"])
    assert found["difference"] == pytest.approx(-0.5)
    assert found["interval_pairs"] is None and line(found).endswith("p = 0.250")


@pytest.mark.parametrize(
    ("name", "row", "guide", "seed", "budget"),
    [
        ("baseline-2", "baseline", None, 2, 1),
        ("baseline-2-x4", "baseline", None, 2, 4),
        ("full-scene-0", "full", "scene", 0, 1),
        ("full-no-mgl-scene-1", "full-no-mgl", "scene", 1, 1),
        ("full-timm-a.b-7-1-x2", "full", "timm-a.b-7", 1, 2),
    ],
)
def test_a_run_is_known_by_its_folder(tmp_path, name, row, guide, seed, budget):
    run = tmp_path / name
    run.mkdir()
    judged = {"average": {"psnr": 20.123456}, "scenes": {"s": 19.987654}}
    elsewhere = {"average": {"psnr": 18.0}, "scenes": {"t": 18.0}}
    tests = {"test": judged, "scenes": elsewhere}
    (run / "result.json").write_text(json.dumps({"steps": 7, "tests": tests}))
    assert results_of(run) == [
        Result(row, guide, budget, seed, 7, 20.1235, {"s": 19.9877}),
        Result(row, guide, budget, seed, 7, 18.0, {"t": 18.0}, "scenes"),
    ]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run of the study"):
        results_of(tmp_path / "unknown-scene-0")


def test_blocks_are_read_as_they_were_collected(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.guidance_blocks.RESULTS", tmp_path / "results")
    for name, psnr in (("full-scene-0", 21.0), ("baseline-0", 20.0)):
        run = tmp_path / "study" / "runs" / name
        run.mkdir(parents=True)
        judged = {"average": {"psnr": psnr}, "scenes": {"x": psnr, "y": psnr + 1}}
        (run / "result.json").write_text(json.dumps({"steps": 7, "tests": {"test": judged}}))
    assert main(["collect", str(tmp_path / "study"), "--name", "one"]) == 0
    (results,) = read_blocks(tmp_path / "results").values()
    assert [asdict(one)["row"] for one in results] == ["baseline", "full"]
    capsys.readouterr()
    assert main(["show", "--folder", str(tmp_path / "results"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["difference"] == pytest.approx(1.0)
