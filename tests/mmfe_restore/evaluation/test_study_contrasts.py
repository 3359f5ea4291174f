"""The guidance study's contrasts: which rows are compared, and with what p-values."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.guidance_answers import (
    answers_of,
    label_of,
    questions,
    share_kept,
    share_line,
    shares_of,
)
from benchmarks.guidance_contrasts import contrast, contrast_line, contrasts_of
from benchmarks.guidance_study import line, summary
from benchmarks.guidance_trainings import Sources, rows_of, run, run_side_by_side
from mmfe_cache.errors import MmfeError


def test_the_spread_is_that_of_a_sample_and_one_seed_has_none():
    def found(psnr):
        average = {"psnr": psnr, "input_psnr": 15.0, "ssim_uniform": 0.6}
        return {"parameters": 10, "average": average, "classes": {}, "tests": {}}

    several = summary("full", "scene", 1, [found(20.0), found(21.0), found(22.0)])
    assert (several["psnr"], several["spread"]) == (21.0, 1.0)
    assert "21.00 dB ± 1.00 (3 seeds" in line(several, {})
    one = summary("full", "scene", 1, [found(20.0)])
    assert one["spread"] is None
    assert "20.00 dB (1 seed," in line(one, {})


def results(*averages, scenes=(0.0, 1.0, 2.0)):
    """One result a seed; scene k lies `scenes[k]` above the average."""
    return [
        {
            "tests": {
                "test": {
                    "average": {"psnr": average},
                    "scenes": {f"s{k}": average + more for k, more in enumerate(scenes)},
                }
            }
        }
        for average in averages
    ]


def test_a_contrast_by_hand():
    found = contrast(results(21.0, 21.2, 21.1), results(20.0, 20.1, 19.9), "test")
    assert found["difference"] == pytest.approx(1.1)
    # Every one of three scenes gains as much: 2 of 8 choices of signs are as far from 0.
    assert (found["scenes"], found["p_scenes"]) == (3, pytest.approx(2 / 8))
    assert found["interval_scenes"] == pytest.approx([1.1, 1.1])  # no scene differs from another
    assert (found["seeds"], found["p_seeds"]) == ([3, 3], pytest.approx(2 / 20))
    # 1.0, 1.1, 1.2 seed by seed: 1.1 ± 4.303 · 0.1 / √3, by a table of Student's distribution.
    assert found["interval_seeds"] == pytest.approx([1.1 - 0.2484, 1.1 + 0.2484], abs=1e-3)
    mixed = contrast(results(20.0, scenes=(0, 1, 2)), results(20.0, scenes=(1, 1, 1)), "test")
    assert mixed["p_scenes"] == pytest.approx(1.0)
    assert (mixed["p_seeds"], mixed["interval_seeds"]) == (None, None)
    assert mixed["interval_scenes"][0] < -0.5 < 0.5 < mixed["interval_scenes"][1]
    one_more = contrast(results(20.0, 20.1), results(20.0), "test")
    assert (one_more["p_seeds"], one_more["interval_seeds"]) == (None, None)
    with pytest.raises(ValueError, match="different scenes"):
        contrast(results(20.0), results(20.0, scenes=(0, 1)), "test")


def test_rows_are_compared_under_their_own_guide():
    done = {
        ("baseline", None): results(20.0),
        ("wide", None): results(20.2),
        ("full", "scene"): results(21.0),
        ("full", "oracle"): results(21.5),
        ("shuffled", "scene"): results(19.5),
    }
    found = {(*one["rows"], one["guide"]): one for one in contrasts_of(done, 2, ["test"])}
    assert set(found) == {
        ("full", "baseline", "scene"), ("full", "baseline", "oracle"),
        ("full", "shuffled", "scene"), ("wide", "baseline", None),
        ("shuffled", "baseline", "scene"),
    }  # fmt: skip
    assert found["full", "baseline", "oracle"]["difference"] == pytest.approx(1.5)
    assert contrast_line(found["full", "shuffled", "scene"]) == (
        "full less shuffled (scene, ×2, test): +1.50 dB, over 3 scenes +1.50 to +1.50, p = 0.250"
    )


ENCODER = "timm:tf_efficientnet_lite0"
TRAINED, RANDOM = f"{ENCODER},weights=/some/file.pth", f"{ENCODER},weights=random"
STUDENTS = {"out/scene.safetensors": "scene", "out/timm.safetensors": TRAINED}


def test_every_question_of_a_guide_is_asked_of_the_guides_that_ran():
    guides = ["scene", "prompt", "oracle", TRAINED, RANDOM, *STUDENTS]
    asked = {(one, other) for _, one, other in questions(guides, STUDENTS)}
    assert asked == {
        ("scene", "prompt"), ("oracle", "scene"), (TRAINED, RANDOM), ("scene", TRAINED),
        ("out/scene.safetensors", "scene"), ("out/timm.safetensors", TRAINED),
    }  # fmt: skip
    assert questions(["scene", "timm:other", RANDOM], {}) == [
        ("trained on degradations less on ImageNet", "scene", "timm:other")
    ]
    assert label_of("out/timm.safetensors", STUDENTS) == f"student of {ENCODER}"
    assert label_of(RANDOM, STUDENTS) == RANDOM
    assert label_of(None, STUDENTS) == "-"


def test_guides_are_compared_by_their_full_rows():
    done = {
        ("baseline", None): results(20.0, 20.2),
        ("full", "scene"): results(21.0, 21.2),
        ("full", "prompt"): results(20.3, 20.5),
        ("shuffled", "prompt"): results(30.0, 30.0),
    }
    (found,) = answers_of(done, ["scene", "prompt", "oracle"], {}, ["test"])
    assert (found["guides"], found["difference"]) == (["scene", "prompt"], pytest.approx(0.7))


def test_the_share_of_a_gain_by_hand():
    base, whole, part = results(20.0, 20.2), results(21.0, 21.2), results(20.9, 21.1)
    found = share_kept(base, whole, part, "test")
    assert found["share"] == pytest.approx(0.9)
    assert found["interval_scenes"] == pytest.approx([0.9, 0.9])
    assert found["each_seed"] == pytest.approx([0.9, 0.9])
    # Scenes 0, 1 and 2 gain 1, 1 and 1 of the teacher, and 0, 1 and 2 of the student.
    uneven = share_kept(base, whole, results(21.0, 21.2, scenes=(-1, 1, 3)), "test")
    assert uneven["share"] == pytest.approx(1.0)
    assert uneven["interval_scenes"][0] < 0.5 < 1.5 < uneven["interval_scenes"][1]
    # Nothing is a share of no gain.
    for other in (base, results(20.1, 20.3, scenes=(0, 1, -4))):
        assert share_kept(base, other, part, "test")["share"] is None
    done = {
        ("baseline", None): base,
        ("full", "scene"): whole,
        ("full", "out/scene.safetensors"): part,
    }
    (one,) = shares_of(done, STUDENTS, ["test"])
    assert share_line(one) == (
        "a network trained on the student of scene (test) has 90% (over scenes 90% to 90%; seed "
        "by seed 90%, 90%) of the gain of the teacher's (aim 95%)"
    )


def asked(out, **given):
    """What the study's command line gives `rows_of`."""
    default = {
        "rows": ["baseline", "full"],
        "guides": ["scene", "oracle"],
        "budgets": [1],
        "seeds": 2,
        "first_seed": 0,
        "seeded": ["full"],
        "steps": 10,
        "set": [],
        "unknown": None,
    }
    return Namespace(out=out, **default | given)


def test_every_training_has_a_folder_of_its_own_and_an_unguided_row_is_trained_once(tmp_path):
    rows = rows_of(asked(tmp_path, budgets=[1, 2]))
    assert [(row.name, row.guide, row.budget) for row in rows] == [
        ("baseline", None, 1),
        ("full", "scene", 1),
        ("full", "oracle", 1),
        ("baseline", None, 2),
        ("full", "scene", 2),
        ("full", "oracle", 2),
    ]
    trainings = [training for row in rows for training in row.trainings]
    assert [len(row.trainings) for row in rows] == [1, 2, 2, 1, 2, 2]
    folders = [out for _, out in trainings]
    assert len(set(folders)) == len(folders) == 10
    assert tmp_path / "runs/full-oracle-1-x2" in folders
    assert {recipe.train.max_steps for recipe, _ in trainings} == {10, 20}
    assert [recipe.train.seed for recipe, _ in rows[1].trainings] == [0, 1]
    further = rows_of(asked(tmp_path, first_seed=3))
    assert [[recipe.train.seed for recipe, _ in row.trainings] for row in further] == [
        [3],
        [3, 4],
        [3, 4],
    ]
    assert further[1].trainings[1][1] == tmp_path / "runs/full-scene-4"
    no_views = rows_of(asked(tmp_path, rows=["view-crop", "full"], budgets=[2]))
    assert {row.name for row in no_views} == {"full"}


def test_a_training_that_fails_leaves_the_others_alone_and_is_told(tmp_path, capfd):
    # Nothing is there to train on: each one fails in a process of its own, and each is named.
    trainings = rows_of(asked(tmp_path, guides=["oracle"], rows=["full"]))[0].trainings
    nothing = Sources(tmp_path / "set", tmp_path / "cache", ())
    with pytest.raises(MmfeError, match="is not there"):
        run_side_by_side(trainings, nothing, jobs=2, quiet=True)
    said = capfd.readouterr().err
    assert "full-oracle-0 failed" in said and "full-oracle-1 failed" in said


def test_an_interrupted_training_ends_the_study(tmp_path, monkeypatch):
    # A signal makes `train` save and return; going on would judge a network that is not there.
    ended = SimpleNamespace(completed=False, total_steps=1000)
    monkeypatch.setattr("benchmarks.guidance_trainings.train", lambda *_, **__: ended)
    recipe, out = rows_of(asked(tmp_path, guides=["oracle"], rows=["full"]))[0].trainings[0]
    with pytest.raises(SystemExit, match="full-oracle-0 was interrupted"):
        run(recipe, Sources(tmp_path / "set", tmp_path / "cache", ()), out)
