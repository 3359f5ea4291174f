"""Permutation tests against values counted by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test

from mmfe_restore.evaluation.permutation import sign_flip_test, two_sample_permutation_test


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
