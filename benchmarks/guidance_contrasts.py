"""The contrasts of the guidance study, each with two permutation tests and two intervals.

Over scenes: the differences of the photographs, averaged over classes and seeds, with their signs
flipped, and their bootstrap interval. They say whether other photographs could undo a difference
of these trainings. Over seeds: the averages of the trainings with their rows exchanged, and
Student's interval of the differences seed by seed (equal seeds draw equal crops). They say whether
other trainings could; with three and three the test cannot be below 0.1. Intervals are of 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.io import counted
from mmfe_cache.seeds import generator
from mmfe_restore.evaluation.significance import (
    sign_flip_test,
    t_interval,
    two_sample_permutation_test,
)
from mmfe_restore.evaluation.statistics import LEVEL, RESAMPLES

CONTRASTS = (
    ("full", "baseline"),
    ("full", "shuffled"),
    ("full", "constant"),
    ("full", "full-no-mgl"),
    ("full", "mgfb"),
    ("full", "mofe"),
    ("mgfb", "baseline"),
    ("mofe", "baseline"),
    ("wide", "baseline"),
    ("shuffled", "baseline"),
    ("view-crop", "view-whole"),
    ("view-aligned", "view-whole"),
    ("view-aligned", "view-crop"),
)
"""Pairs of rows whose difference is tested, where both have run."""


def contrasts_of(
    done: dict[tuple[str, str | None], list[dict[str, Any]]], budget: int, tests: Sequence[str]
) -> list[dict[str, Any]]:
    """Every contrast of two rows that have run, on every test set, with its two p-values."""
    found: list[dict[str, Any]] = []
    for one, other in CONTRASTS:
        for (row, guide), results in done.items():
            # A row without guidance is the same for every guide.
            against = done.get((other, guide), done.get((other, None)))
            if row != one or against is None:
                continue
            for test in tests:
                about = {"rows": [one, other], "guide": guide, "budget": budget, "test": test}
                found.append(about | contrast(results, against, test))
    return found


def contrast(
    one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], test: str
) -> dict[str, Any]:
    """The difference of two rows' PSNR, and how often chance makes one as large.

    Args:
        one: results of a row, a seed each.
        other: of the row that is subtracted; the seeds need not be as many.
        test: the test set's name.
    """
    higher, lower = by_name(scene_means(one, test), scene_means(other, test))
    differences = higher - lower
    psnr = [averages(row, test) for row in (one, other)]
    paired = len(psnr[0]) == len(psnr[1])
    over_seeds = t_interval([a - b for a, b in zip(*psnr, strict=True)]) if paired else None
    return {
        "difference": mean(psnr[0]) - mean(psnr[1]),
        "scenes": len(differences),
        "interval_scenes": interval(resampled(differences).mean(axis=1)),
        "p_scenes": sign_flip_test(differences.tolist()),
        "seeds": [len(values) for values in psnr],
        "interval_seeds": None if over_seeds is None else [over_seeds.low, over_seeds.high],
        "p_seeds": two_sample_permutation_test(*psnr) if min(map(len, psnr)) > 1 else None,
    }


def averages(row: Sequence[dict[str, Any]], test: str) -> list[float]:
    """A row's PSNR over a test set, a seed each."""
    return [float(result["tests"][test]["average"]["psnr"]) for result in row]


def scene_means(row: Sequence[dict[str, Any]], test: str) -> dict[str, float]:
    """A row's PSNR on every scene, averaged over its classes and the seeds."""
    judged = [result["tests"][test]["scenes"] for result in row]
    by_name(*judged)
    return {name: mean(one[name] for one in judged) for name in judged[0]}


def by_name(*rows: Mapping[str, float]) -> list[NDArray[np.float64]]:
    """(n,) of each row, scenes in one order.

    Raises:
        ValueError: the rows were judged on different scenes.
    """
    names = sorted(rows[0])
    if any(sorted(row) != names for row in rows):
        raise ValueError("rows that were judged on different scenes cannot be compared")
    return [np.array([row[name] for name in names]) for row in rows]


def resampled(scenes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(draws, n) the scenes drawn with replacement; equal draws for every row of n scenes."""
    count = len(scenes)
    return scenes[generator("study-scenes", count).integers(count, size=(RESAMPLES, count))]


def interval(values: NDArray[np.float64]) -> list[float]:
    """The percentiles that hold `LEVEL` of the values between them."""
    return [float(end) for end in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def contrast_line(found: dict[str, Any]) -> str:
    """One contrast for people."""
    return (
        f"{' less '.join(found['rows'])} ({found['guide'] or 'no guide'}, ×{found['budget']}, "
        f"{found['test']}): {said(found)}"
    )


def said(found: dict[str, Any]) -> str:
    """A difference with what makes it uncertain."""
    low, high = found["interval_scenes"]
    text = (
        f"{found['difference']:+.2f} dB, over {counted(found['scenes'], 'scene')} "
        f"{low:+.2f} to {high:+.2f}, p = {found['p_scenes']:.3f}"
    )
    if found["interval_seeds"] is not None:
        low, high = found["interval_seeds"]
        text += f"; over seeds {low:+.2f} to {high:+.2f}"
    return text if found["p_seeds"] is None else f"{text}, p = {found['p_seeds']:.3f}"
