"""Permutation tests: how often chance alone would make a difference as large as the one found.

Both are two-sided and exact where all permutations can be counted; otherwise they draw `DRAWS` of
them and count the data's own as one more, so that no p-value is ever 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.seeds import generator

MOST = 1 << 16
"""Permutations that are counted one by one."""

DRAWS = 20_000

_SLACK = 1e-9
"""Relative: sums in another order are equal all the same."""


def sign_flip_test(differences: Sequence[float]) -> float:
    """Whether paired differences are centred at 0: each is as likely with the other sign.

    Args:
        differences: of independent pairs, such as one for each scene; at least one.

    Returns:
        the share of all 2ⁿ choices of signs whose mean is as far from 0 as the one found.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    values = _finite(differences)
    count = len(values)
    found = abs(values.sum())
    if 1 << min(count, 60) <= MOST:
        codes = np.arange(1 << count)[:, None] >> np.arange(count) & 1
        return _share(np.abs((1 - 2 * codes) @ values), found, values, drawn=False)
    signs = 1 - 2 * generator("sign-flips", count).integers(2, size=(DRAWS, count))
    return _share(np.abs(signs @ values), found, values, drawn=True)


def two_sample_permutation_test(one: Sequence[float], other: Sequence[float]) -> float:
    """Whether two groups of independent values have the same mean: labels could be exchanged.

    Args:
        one: such as the averages of a recipe's trainings; at least one.
        other: of another recipe's.

    Returns:
        the share of all ways to choose the first group out of all values whose difference of
        means is as large as the one found. It cannot be below 2 over their number: 0.1 for three
        and three.

    Raises:
        ValueError: a group is empty, or a value is not finite.
    """
    values = np.concatenate([_finite(one), _finite(other)])
    size, count = len(one), len(values)
    total = values.sum()

    def distance(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs(sums / size - (total - sums) / (count - size))

    found = float(distance(values[:size].sum(keepdims=True))[0])
    if comb(count, size) <= MOST:
        sums = np.array([values[list(chosen)].sum() for chosen in combinations(range(count), size)])
        return _share(distance(sums), found, values, drawn=False)
    draw = generator("relabelings", size, count)
    sums = np.array([draw.permutation(values)[:size].sum() for _ in range(DRAWS)])
    return _share(distance(sums), found, values, drawn=True)


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    """As an array; nothing is as far from 0 as a nan, which would come out as certainty, p = 0."""
    found = np.asarray(values, dtype=np.float64)
    if not found.size or not np.isfinite(found).all():
        raise ValueError(f"a permutation test needs finite values, and one at least: {found}")
    return found


def _share(
    statistics: NDArray[np.float64], found: float, values: NDArray[np.float64], *, drawn: bool
) -> float:
    reached = int((statistics >= found - _SLACK * float(np.abs(values).sum())).sum())
    return (reached + drawn) / (len(statistics) + drawn)
