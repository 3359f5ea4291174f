"""Differences over seeds, against values worked out by hand and against `compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmfe_cache.errors import DataError, UsageError
from mmfe_restore.evaluation.compare import SavedReport, compare
from mmfe_restore.evaluation.seeds import mean_scores, seed_difference, t_interval
from mmfe_restore.evaluation.statistics import ImageScore

ABOUT = {
    "dataset": "mine", "split": "test", "protocol": "mmfe", "crop": "whole image",
    "rounding": "none", "classes": {"low": {}, "rain": {}},
}  # fmt: skip


def report(values: dict[str, list[float]]) -> SavedReport:
    """One training's PSNR by class; image k of a class shows scene k."""
    scores = tuple(
        ImageScore(f"{label}/{scene}", label, f"s{scene}", 40, 40, {"psnr": value})
        for label, row in values.items()
        for scene, value in enumerate(row)
    )
    return SavedReport(Path("nowhere"), ABOUT, scores)


def random_report(seed: int, shift: float = 0.0) -> SavedReport:
    draw = np.random.default_rng(seed)
    return report({label: list(shift + draw.normal(25, 3, 8)) for label in ("low", "rain")})


def test_one_seed_is_what_compare_says():
    a, b = random_report(1), random_report(2, 0.5)
    whole, found = compare(a, b).average, seed_difference([a], [b])
    assert (found.mean, found.low, found.high) == (whole.mean, whole.low, whole.high)
    assert (found.sd, found.seeds_low, found.seeds_high) == (None, None, None)
    assert found.images == 16


def test_differences_by_hand():
    # Class `low` gains 1, 2 and 3 dB with the three seeds, class `rain` three times as much.
    reference = [report({"low": [20.0, 24.0], "rain": [30.0, 31.0]}) for _ in range(3)]
    rows = [report({"low": [20 + d, 24 + d], "rain": [30 + 3 * d, 31 + 3 * d]}) for d in (1, 2, 3)]
    found = seed_difference(reference, rows)
    assert found.per_seed == pytest.approx((2, 4, 6))
    assert found.mean == pytest.approx(4)
    # All images of a class gain alike: no other draw of scenes says anything else.
    assert (found.low, found.high) == pytest.approx((4, 4))
    assert found.sd == pytest.approx(2)
    # t(0.975, 2) = 4.302653 (any table of Student's distribution), 2 / sqrt(3) = 1.154701.
    half = 4.302652729911275 * 1.1547005383792517
    assert (found.seeds_low, found.seeds_high) == pytest.approx((4 - half, 4 + half))
    json.dumps(found.to_json(), allow_nan=False)


def test_the_interval_over_scenes_is_that_of_the_mean_over_seeds():
    reference = [random_report(seed) for seed in (1, 2)]
    rows = [random_report(seed, 0.3) for seed in (3, 4)]
    pairs = zip(mean_scores(reference), mean_scores(rows), strict=True)
    differences: dict[str, list[float]] = {"low": [], "rain": []}
    for one, other in pairs:
        differences[one.label].append(other.values["psnr"] - one.values["psnr"])
    flat = report({label: [0.0] * 8 for label in differences})
    found, whole = seed_difference(reference, rows), compare(flat, report(differences)).average
    assert found.mean == pytest.approx(whole.mean)
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high))


def test_student_of_a_textbook():
    # Five values, t(0.975, 4) = 2.776445.
    found = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found is not None
    assert found.high - 3 == pytest.approx(2.776445 * np.sqrt(2.5 / 5), abs=1e-6)
    assert t_interval([1.0]) is None


def test_an_image_without_a_value_in_one_training_is_left_out_of_all():
    inf = float("inf")
    reference = [report({"low": [20.0, 22.0]}), report({"low": [20.0, inf]})]
    rows = [report({"low": [21.0, 29.0]}), report({"low": [21.0, 29.0]})]
    found = seed_difference(reference, rows)
    assert (found.mean, found.images, found.left_out) == (pytest.approx(1), 1, 1)
    nothing = [report({"low": [inf, inf]})]
    with pytest.raises(DataError, match="no image"):
        seed_difference(nothing, [report({"low": [1.0, 2.0]})])


def test_other_seeds_or_images_do_not_compare():
    with pytest.raises(UsageError, match="equally many seeds"):
        seed_difference([random_report(1)], [random_report(2), random_report(3)])
    with pytest.raises(UsageError, match="different images"):
        seed_difference([random_report(1)], [report({"low": [1.0]})])
