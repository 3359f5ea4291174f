"""Means and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmfe_restore.evaluation.statistics import ImageScore, bootstrap, bootstrap_gain, summarise


def pair(label: str, scene: str, before: float, after: float) -> ImageScore:
    values = {"input_psnr": before, "psnr": after}
    return ImageScore(f"{label}/{scene}", label, scene, 10, 10, values)


def nine_perfect_inputs_and_a_dark_one() -> list[ImageScore]:
    """Restoration harmed nine images that needed none, and gained 0.30 dB on the tenth."""
    scores = [pair("low", str(i), math.inf, 30.0 + i) for i in range(9)]
    return [*scores, pair("low", "dark", 20.0, 20.3)]


def score(label: str, scene: str, psnr: float) -> ImageScore:
    return ImageScore(f"{label}/{scene}", label, scene, 10, 10, {"psnr": psnr})


def test_interval_of_the_mean_agrees_with_the_normal_one():
    random = np.random.default_rng(0)
    values = random.normal(30, 2, 400)
    scores = [score("rain", str(i), v) for i, v in enumerate(values)]
    interval = bootstrap(scores)[0]["rain"]["psnr"]
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05)


def test_intervals_are_the_same_every_time():
    scores = [score("rain", str(i), 20 + i % 7) for i in range(30)]
    assert bootstrap(scores) == bootstrap(scores)


def test_shared_scenes_are_drawn_together():
    # Errors that cancel within a scene leave the average certain only if scenes stay together.
    random = np.random.default_rng(1)
    noise = random.normal(0, 3, 100)
    scores = [score("a", str(i), 30 + e) for i, e in enumerate(noise)]
    scores += [score("b", str(i), 20 - e) for i, e in enumerate(noise)]
    classes, average = bootstrap(scores)
    assert average["psnr"].high - average["psnr"].low < 1e-9
    assert classes["a"]["psnr"].high - classes["a"]["psnr"].low > 0.5


def test_classes_of_one_scene_set_are_drawn_together_beside_others():
    # As in the three tasks: noise levels share their photographs, haze has its own.
    random = np.random.default_rng(1)
    noise = random.normal(0, 3, 100)
    scores = [score("noise-15", str(i), 30 + e) for i, e in enumerate(noise)]
    scores += [score("noise-25", str(i), 20 - e) for i, e in enumerate(noise)]
    scores += [score("haze", f"haze-{i}", 25.0) for i in range(7)]
    average = bootstrap(scores)[1]
    assert average["psnr"].high - average["psnr"].low < 1e-9


def test_classes_of_different_scenes_are_drawn_apart():
    scores = [score("a", f"a{i}", 30 + i % 5) for i in range(40)]
    scores += [score("b", f"b{i}", 20 + i % 5) for i in range(20)]
    classes, average = bootstrap(scores)
    assert classes["b"]["psnr"].high <= 24
    assert average["psnr"].low > 24


def test_few_scenes_are_noted():
    notes = summarise([score("a", str(i), 30.0 + i) for i in range(3)]).notes
    assert notes == ("intervals rest on 3 scenes only: take them as too narrow",)


def test_one_scene_is_noted_in_the_singular():
    (note,) = summarise([score("a", "0", 30.0)]).notes
    assert note == "intervals rest on 1 scene only: take them as too narrow"
    scores = [score("a", "0", 30.0), *(score("b", str(i), 30.0) for i in range(2))]
    assert "rest on 1 (a), 2 scenes (b) only" in summarise(scores).notes[0]


def test_few_scenes_of_one_class_are_noted_beside_many_of_another():
    scores = [score("haze", f"h{i}", 30.0 + i) for i in range(50)]
    scores += [score("low", f"l{i}", 30.0 + i) for i in range(15)]
    notes = summarise(scores).notes
    assert notes == ("intervals rest on 15 scenes (low) only: take them as too narrow",)


@pytest.mark.parametrize(
    ("figure", "side", "value", "why"),
    [
        ("psnr", 90, math.inf, "identical to the ground truth"),
        ("input_ssim_uniform", 5, math.nan, "smaller than SSIM's window"),
        ("lpips", 40, math.nan, "too small for LPIPS's network"),
        ("lpips", 90, math.nan, "LPIPS is not a number"),
        ("ssim_gaussian", 90, math.nan, "SSIM 11×11 is not a number"),
    ],
)
def test_what_is_left_out_has_its_metrics_own_reason(figure, side, value, why):
    notes = summarise([ImageScore("a", "low", "a", side, side, {figure: value})]).notes
    assert why in notes[0]


def test_order_of_the_classes():
    scores = [score(label, "1", 30.0) for label in ("low", "rain", "haze", "other")]
    assert list(summarise(scores, ("haze", "low", "snow")).classes) == [
        "haze",
        "low",
        "rain",
        "other",
    ]


def test_all_infinite_is_infinite_and_nothing_is_nan():
    found = summarise([score("a", "1", math.inf), score("b", "1", math.nan)])
    assert found.classes["a"]["psnr"] == math.inf
    assert math.isnan(found.classes["b"]["psnr"])


def test_the_gain_is_of_the_images_that_have_both():
    found = summarise(nine_perfect_inputs_and_a_dark_one())
    # The difference of the two means would be 32.63 - 20 = +12.63 dB.
    assert found.gains["low"].mean == pytest.approx(0.30)
    assert found.gain.mean == pytest.approx(0.30)
    assert (found.gain.images, found.gain.left_out) == (1, 9)
    assert found.gain.omission == "9 of 10"
    assert any("low: 9 of 10 images left out of the gain" in note for note in found.notes)


def test_the_average_gain_is_the_mean_of_the_classes_that_have_one():
    scores = [pair("a", "1", 20.0, 22.0), pair("a", "2", 20.0, 24.0), pair("b", "1", 30.0, 30.5)]
    scores += [pair("c", "1", math.inf, 40.0)]
    found = summarise(scores)
    assert found.gain.mean == pytest.approx((3.0 + 0.5) / 2)
    assert found.gain.omission == "1 of 4"
    assert math.isnan(found.gains["c"].mean)
    assert "average: 1 of 3 classes left out of input_psnr (c)" in found.notes


def test_the_gains_interval_is_of_the_paired_differences():
    # Images that differ by tens of dB and all gain the same: nothing is unsure about the gain.
    scores = [pair("a", str(i), 10.0 + i, 11.0 + i) for i in range(30)]
    scores += [pair("a", "x", math.inf, 5.0)]
    classes, average = bootstrap_gain(scores)
    assert (classes["a"].low, classes["a"].high) == pytest.approx((1.0, 1.0))
    assert (average.low, average.high) == pytest.approx((1.0, 1.0))


def test_a_class_without_a_value_leaves_the_averages_interval_alone():
    scores = [score("a", str(i), 30.0 + i) for i in range(30)]
    alone = bootstrap(scores)[1]["psnr"]
    assert bootstrap([*scores, score("b", "1", math.inf)])[1]["psnr"] == alone
