"""How sure a difference between trainings is: over seeds and scenes, and by permutation.

Two things make a difference between two recipes uncertain. The test photographs are a sample of
photographs: `SeedDifference` has a bootstrap interval over scenes for that. The trainings are a
sample of trainings: it has Student's interval over the seeds for that. Neither stands for the
other, so both are given.

Permutation tests say how often chance alone would make a difference as large as the one found. Both
are two-sided and exact where all permutations can be counted; otherwise they draw `DRAWS` of them
and count the data's own as one more, so that no p-value is ever 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.seeds import generator
from mmfe_restore.evaluation.compare import SavedReport, check_comparable
from mmfe_restore.evaluation.statistics import (
    LEVEL,
    Figure,
    ImageScore,
    Interval,
    bootstrap,
    summarise,
)

MOST_COUNTED = 1 << 16
"""Permutations that are counted one by one."""

DRAWS = 20_000

_SLACK = 1e-9
"""Relative: sums in another order are equal all the same."""


@dataclass(frozen=True)
class SeedDifference:
    """How a recipe's trainings differ from a reference's, seed by seed and image by image.

    Attributes:
        mean: mean over the classes of the mean over their images of the mean over the seeds of
            the per-image differences; positive means that the recipe is higher.
        low: lower end of the interval over scenes, as `mmfe compare` takes it, of the per-image
            differences averaged over the seeds.
        high: its upper end.
        per_seed: the difference of each seed's two trainings alone; their mean is ``mean``.
        sd: sample standard deviation of ``per_seed`` (n - 1); None for one seed.
        seeds_low: lower end of Student's interval over the seeds; None for one seed.
        seeds_high: its upper end.
        images: compared: those with a finite value in every training of both.
        left_out: that lack one.
    """

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    sd: float | None
    seeds_low: float | None
    seeds_high: float | None
    images: int
    left_out: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"per_seed": list(self.per_seed)}


def seed_difference(
    reference: Sequence[SavedReport], reports: Sequence[SavedReport], figure: Figure = "psnr"
) -> SeedDifference:
    """Compare two recipes over K seeds; with one seed it is what `mmfe compare` says.

    Args:
        reference: reports of the reference's K trainings, in the order of their seeds.
        reports: of the other recipe's, with the same seeds: equal seeds draw equal samples, crops
            and noise, so the two trainings of a seed are a pair.
        figure: what is compared.

    Raises:
        UsageError: other numbers of trainings, of other images or measured differently.
        DataError: no image has a finite value in all of them.
    """
    if len(reference) != len(reports) or not reports:
        raise UsageError(
            "two recipes are compared over equally many seeds",
            got=f"{len(reference)} and {len(reports)} trainings",
        )
    for one, other in zip(reference, reports, strict=True):
        check_comparable(one, other)
        check_comparable(reports[0], other)
    pairs = [
        _differences(one, other, figure) for one, other in zip(reference, reports, strict=True)
    ]
    used = [name for name in pairs[0] if all(math.isfinite(pair[name]) for pair in pairs)]
    if not used:
        raise DataError(f"no image has a finite {figure} in all of these evaluations")
    about = {score.id: score for score in reference[0].scores}
    per_seed = tuple(_average({name: pair[name] for name in used}, about, figure) for pair in pairs)
    over_seeds = {name: math.fsum(pair[name] for pair in pairs) / len(pairs) for name in used}
    # With those that are left out: classes that show the same scenes then still share one draw.
    every = {name: over_seeds.get(name, math.nan) for name in about}
    _, overall = bootstrap(_as_scores(every, about, figure))
    interval = t_interval(per_seed)
    return SeedDifference(
        _average(over_seeds, about, figure),
        overall[figure].low,
        overall[figure].high,
        per_seed,
        statistics.stdev(per_seed) if len(per_seed) > 1 else None,
        None if interval is None else interval.low,
        None if interval is None else interval.high,
        len(used),
        len(about) - len(used),
    )


def mean_scores(reports: Sequence[SavedReport]) -> list[ImageScore]:
    """Every image with its figures' means over K trainings, nan or inf where one of them is.

    Raises:
        UsageError: the reports are of different images or measured differently.
    """
    for other in reports[1:]:
        check_comparable(reports[0], other)
    by_id = [{score.id: score for score in report.scores} for report in reports]
    return [
        replace(
            score,
            values={
                name: sum(scores[score.id].values[name] for scores in by_id) / len(by_id)
                for name in score.values
                if all(name in scores[score.id].values for scores in by_id)
            },
        )
        for score in reports[0].scores
    ]


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's interval of `LEVEL` for the mean of ``values``; None for fewer than two.

    mean ± t · sd / √K, t the quantile of Student's distribution with K - 1 degrees of freedom:
    4.30 for three values, so that three seeds are not taken for many.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values)
    mean = statistics.fmean(values)
    return Interval(mean - half / math.sqrt(len(values)), mean + half / math.sqrt(len(values)))


def _differences(one: SavedReport, other: SavedReport, figure: Figure) -> dict[str, float]:
    theirs = {score.id: score.values.get(figure, math.nan) for score in other.scores}
    return {s.id: theirs[s.id] - s.values.get(figure, math.nan) for s in one.scores}


def _as_scores(
    values: Mapping[str, float], about: Mapping[str, ImageScore], figure: Figure
) -> list[ImageScore]:
    return [replace(s, values={figure: values[s.id]}) for s in about.values() if s.id in values]


def _average(values: Mapping[str, float], about: Mapping[str, ImageScore], figure: Figure) -> float:
    return summarise(_as_scores(values, about, figure)).average[figure]


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
    if 1 << min(count, 60) <= MOST_COUNTED:
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
        means is as large as the one found. It cannot be below 1 over their number, nor for groups
        of one size, which may change places, below 2 over it: 0.1 for three and three.

    Raises:
        ValueError: a group is empty, or a value is not finite.
    """
    values = np.concatenate([_finite(one), _finite(other)])
    size, count = len(one), len(values)
    total = values.sum()

    def distance(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.abs(sums / size - (total - sums) / (count - size))

    found = float(distance(values[:size].sum(keepdims=True))[0])
    if comb(count, size) <= MOST_COUNTED:
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
