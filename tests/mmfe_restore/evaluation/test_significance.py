"""Differences over seeds, against values worked out by hand and against `compare`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import permutation_test

from mmfe_cache.errors import DataError, UsageError
from mmfe_restore.evaluation.compare import SavedReport, compare
from mmfe_restore.evaluation.significance import (
    mean_scores,
    seed_difference,
    sign_flip_test,
    t_interval,
    two_sample_permutation_test,
)
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


def test_classes_share_their_draw_of_scenes_also_where_an_image_is_left_out():
    # Both classes gain alike on each scene, so their average is as unsure as one of them. Were they
    # drawn apart because one lacks an image, the interval would be narrower by the root of two.
    gains = np.random.default_rng(0).normal(0, 1, 60)
    flat = report({label: [25.0] * 60 for label in ("low", "rain")})
    low, rain = [float("inf"), *(25 + gains[1:])], list(25 + gains)
    found = compare(flat, report({"low": low, "rain": rain})).average
    whole = compare(flat, report({"low": rain, "rain": rain})).average
    assert found.left_out == 1
    assert found.high - found.low == pytest.approx(whole.high - whole.low, rel=0.1)
    seeds = seed_difference([flat], [report({"low": low, "rain": rain})])
    assert (seeds.low, seeds.high) == (found.low, found.high)


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


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 1, 1, 1, 1], 2 / 32),  # all signs alike, either way
        ([3, 1], 2 / 4),  # sums 4, 2, -2, -4
        ([1, -1], 1.0),
        ([0, 0, 0], 1.0),
        ([0.1, 0.2, 0.3], 2 / 8),  # of which no sum is exact in binary
        ([5], 1.0),
    ],
)
def test_sign_flips_by_hand(differences, p):
    assert sign_flip_test(differences) == pytest.approx(p)


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([1], [2], 1.0),
        ([1, 1], [1, 1], 1.0),
        # Sums of two: 3, 5, 9, 6, 10, 12 of 15; 3 and 12 are furthest from the middle.
        ([1, 2], [4, 8], 2 / 6),
    ],
)
def test_relabelings_by_hand(one, other, p):
    assert two_sample_permutation_test(one, other) == pytest.approx(p)


def test_they_equal_scipys():
    draw = np.random.default_rng(0)
    one, other = draw.normal(0, 1, 6), draw.normal(0.8, 1, 5)
    paired = draw.normal(0.4, 1, 9)

    def mean(x, axis):
        return np.abs(np.mean(x, axis=axis))

    def difference(x, y, axis):
        return np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis))

    # Its own two-sided p is twice the smaller tail, which is another test.
    exact = {"n_resamples": np.inf, "vectorized": True, "alternative": "greater"}
    theirs = permutation_test((one, other), difference, **exact).pvalue
    assert two_sample_permutation_test(one, other) == pytest.approx(theirs)
    flipped = permutation_test((paired,), mean, permutation_type="samples", **exact).pvalue
    assert sign_flip_test(paired) == pytest.approx(flipped)


def test_where_there_are_too_many_they_are_drawn_and_never_0():
    assert sign_flip_test([1.0] * 40) == pytest.approx(1 / 20_001)
    assert sign_flip_test([1.0, -1.0] * 20) == 1.0
    assert two_sample_permutation_test(range(20), range(100, 120)) == pytest.approx(1 / 20_001)
    draw = np.random.default_rng(1)
    values = draw.normal(0.3, 1, 17)
    # Drawn and exact agree: 20,000 draws are within 0.015 of a share (4 standard errors).
    codes = np.arange(1 << 17)[:, None] >> np.arange(17) & 1
    exact = np.mean(np.abs((1 - 2 * codes) @ values) >= abs(values.sum()) - 1e-9)
    assert sign_flip_test(values) == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_instead_of_certain(odd):
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test([1.0, odd, 2.0])
    with pytest.raises(ValueError, match="finite"):
        two_sample_permutation_test([1.0, 2.0], [3.0, odd])


def test_nothing_is_refused():
    with pytest.raises(ValueError, match="one at least"):
        sign_flip_test([])
    with pytest.raises(ValueError, match="one at least"):
        two_sample_permutation_test([], [1.0])
