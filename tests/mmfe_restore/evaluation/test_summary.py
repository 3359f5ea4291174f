"""Means and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmfe_restore.evaluation.scores import ImageScore
from mmfe_restore.evaluation.summary import bootstrap, summarise


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


def test_few_scenes_of_one_class_are_noted_beside_many_of_another():
    scores = [score("haze", f"h{i}", 30.0 + i) for i in range(50)]
    scores += [score("low", f"l{i}", 30.0 + i) for i in range(15)]
    notes = summarise(scores).notes
    assert notes == ("intervals rest on 15 (low) scenes only: take them as too narrow",)


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
