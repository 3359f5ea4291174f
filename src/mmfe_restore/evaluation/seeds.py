"""Trainings that differ in nothing but their seed: mean, spread, and the paired difference of two.

Two things make a difference between two recipes uncertain. The test photographs are a sample of
photographs: `SeedDifference` has a bootstrap interval over scenes for that. The trainings are a
sample of trainings: it has Student's interval over the seeds for that. Neither stands for the
other, so both are given.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmfe_cache.errors import DataError, UsageError
from mmfe_restore.evaluation.compare import SavedReport, check_comparable
from mmfe_restore.evaluation.statistics import (
    LEVEL,
    Figure,
    ImageScore,
    Interval,
    bootstrap,
    summarise,
)


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
    _, overall = bootstrap(_as_scores(over_seeds, about, figure))
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
        ImageScore(
            score.id,
            score.label,
            score.scene,
            score.height,
            score.width,
            {
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
    return [
        ImageScore(s.id, s.label, s.scene, s.height, s.width, {figure: values[s.id]})
        for s in about.values()
        if s.id in values
    ]


def _average(values: Mapping[str, float], about: Mapping[str, ImageScore], figure: Figure) -> float:
    return summarise(_as_scores(values, about, figure)).average[figure]
