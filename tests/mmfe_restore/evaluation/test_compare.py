"""Two evaluations, image by image."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmfe_cache.errors import DataError, UsageError
from mmfe_restore.evaluation import evaluate
from mmfe_restore.evaluation.compare import compare, read_report

from .conftest import make_samples, small_recipe, small_restorer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    recipe = small_recipe(experts="none", encoder_guidance="none", decoder_guidance="none")
    for name, seed in (("a", 0), ("b", 1)):
        evaluate(
            small_restorer(recipe, seed),
            recipe,
            make_samples(),
            None,
            out=folder / name / "eval" / "mine-test",
            device="cpu",
            with_pictures=False,
        )
    return folder


def test_differences_equal_a_plain_count(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b" / "eval" / "mine-test")
    found = compare(a, b)
    mine = {s.id: s.values["psnr"] for s in a.scores}
    theirs = {s.id: s.values["psnr"] for s in b.scores}
    differences = {name: theirs[name] - mine[name] for name in mine}
    assert found.average.wins == sum(d > 0 for d in differences.values())
    assert found.average.wins + found.average.losses == 9
    by_class = [
        np.mean([d for name, d in differences.items() if name.startswith(f"{label}/")])
        for label in ("low", "rain", "low_rain")
    ]
    assert found.average.mean == pytest.approx(np.mean(by_class), abs=1e-9)
    assert found.average.b - found.average.a == pytest.approx(found.average.mean, abs=1e-9)
    assert found.average.low <= found.average.mean <= found.average.high
    ranked = sorted(differences, key=differences.__getitem__)
    assert [name for name, _ in found.worst] == ranked[:5]
    assert [name for name, _ in found.best] == ranked[::-1][:5]
    assert found.notes == ("intervals rest on 3 scenes only: take them as too narrow",)
    json.dumps(found.to_json(), allow_nan=False)


def test_swapping_the_two_changes_every_sign(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    there, back = compare(a, b).average, compare(b, a).average
    assert there.mean == pytest.approx(-back.mean)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert (there.wins, there.losses) == (back.losses, back.wins)


def test_a_report_reads_back_what_was_measured(runs):
    report = read_report(runs / "a")
    saved = {image["id"]: image for image in report.about["images"]}
    for score in report.scores:
        assert score.values["psnr"] == pytest.approx(saved[score.id]["psnr"], abs=1e-7)


def test_a_guide_of_one_and_none_of_the_other_are_told(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    told = {"guide": "scene", "embeddings": "scene", "prompt": None, "view": "whole@224"}
    guided = replace(b, about=b.about | told)
    note = "A was judged with no guide, B with the guide scene at whole@224"
    assert note in compare(a, guided).notes
    early = {key: value for key, value in guided.about.items() if key != "embeddings"}
    assert note in compare(a, replace(guided, about=early)).notes


def test_a_student_and_another_prompt_are_told(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    told = {"guide": "qwen", "embeddings": "qwen", "prompt": "What?", "view": "whole@224"}
    teacher = replace(a, about=a.about | told)
    student = replace(b, about=b.about | told | {"embeddings": "small", "prompt": None})
    assert (
        "A was judged with the guide qwen at whole@224, asked 'What?', B with the guide small at "
        "whole@224"
    ) in compare(teacher, student).notes
    other = replace(b, about=b.about | told | {"prompt": "Why?"})
    (note,) = (one for one in compare(teacher, other).notes if "B with the guide qwen" in one)
    assert "'What?'" in note and note.endswith("'Why?'")
    early = {key: value for key, value in student.about.items() if key != "embeddings"}
    assert compare(teacher, replace(student, about=early)).notes == compare(a, b).notes


def test_embeddings_that_were_read_otherwise_are_told(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    told = {"guide": "scene", "embeddings": "scene", "prompt": None, "view": "whole@224"}
    grid = replace(a, about=a.about | told | {"tokens": "grid", "control": "none"})
    mean = replace(b, about=b.about | told | {"tokens": "mean", "control": "constant"})
    assert compare(grid, mean).notes[:2] == (
        "A was judged with guide.tokens=grid, B with guide.tokens=mean",
        "A was judged with guide.control=none, B with guide.control=constant",
    )
    assert compare(grid, grid).notes == compare(a, b).notes


def test_other_images_of_the_same_names_are_refused(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    first, *rest = b.scores
    values = {**first.values, "input_psnr": first.values["input_psnr"] + 0.5}
    other = replace(b, scores=(replace(first, values=values), *rest))
    with pytest.raises(UsageError, match="different images that bear the same names") as caught:
        compare(a, other)
    assert first.id in str(caught.value.got)
    values = {**first.values, "input_psnr": first.values["input_psnr"] + 1e-8}  # another machine's
    compare(a, replace(b, scores=(replace(first, values=values), *rest)))


def test_windows_of_one_and_whole_images_of_the_other_are_told(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    assert a.about["attention_window"] is None
    local = replace(b, about={**b.about, "attention_window": 96})
    told = "A's attention sums over whole images, B's over windows of 96 pixels"
    assert told in compare(a, local).notes
    # A report of before there were windows names none.
    early = replace(a, about={k: v for k, v in a.about.items() if k != "attention_window"})
    assert compare(early, a).notes == compare(a, a).notes


def test_other_protocols_do_not_compare(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    other = replace(b, about={**b.about, "protocol": "onerestore"})
    with pytest.raises(UsageError, match="differ in their protocol"):
        compare(a, other)


def test_other_images_do_not_compare(runs):
    a, b = read_report(runs / "a"), read_report(runs / "b")
    with pytest.raises(UsageError, match="different images"):
        compare(a, replace(b, scores=b.scores[1:]))


def test_a_run_without_evaluation(tmp_path):
    with pytest.raises(UsageError, match="no evaluation"):
        read_report(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"classes": 1}'])
def test_a_damaged_report(runs, tmp_path, text):
    saved = runs / "a" / "eval" / "mine-test" / "per_image.csv"
    (tmp_path / "metrics.json").write_text(text)
    (tmp_path / "per_image.csv").write_bytes(saved.read_bytes())
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_report(tmp_path)
    # Not the newest run's figures, in this report's place.
    assert f"mmfe eval --checkpoint RUN --out {tmp_path} --force" in str(caught.value)


def with_psnr(report, values):
    scores = [
        replace(score, values={**score.values, "psnr": value})
        for score, value in zip(report.scores, values, strict=True)
    ]
    return replace(report, scores=tuple(scores))


def test_images_without_a_value_on_one_side_are_left_out_and_counted(runs):
    report = read_report(runs / "a")
    assert [score.label for score in report.scores] == ["low"] * 3 + ["low_rain"] * 3 + ["rain"] * 3
    a = with_psnr(report, [np.inf, 20, 21, np.inf, np.inf, np.inf, 22, 23, 24])
    b = with_psnr(report, [30, 20.5, np.inf, 30, 31, 32, 23, 24, 25])
    found = compare(a, b)
    rows = {row.label: row for row in found.classes}
    assert list(rows) == ["low", "rain"]
    assert (rows["low"].mean, rows["low"].images, rows["low"].left_out) == (0.5, 1, 2)
    assert rows["low"].omission == "2 of 3"
    assert (rows["low"].a, rows["low"].b) == (20, 20.5)
    assert found.average.mean == pytest.approx((0.5 + 1.0) / 2)
    assert (found.average.images, found.average.left_out) == (4, 5)
    assert found.to_json()["average"]["left_out"] == 5
    assert "low: 2 of 3 images left out: no finite psnr in A 1, B 1" in found.notes
    assert "low_rain: 3 of 3 images left out: no finite psnr in A 3" in found.notes
