"""The contrasts of the guidance study, each with two permutation tests.

Over scenes: the differences of the photographs, averaged over classes and seeds, with their signs
flipped. It says whether other photographs could undo a difference of these trainings. Over seeds:
the averages of the trainings with their rows exchanged. It says whether other seeds could; with
three and three it cannot be below 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from mmfe_cache.io import counted
from mmfe_restore.evaluation.permutation import relabelings, sign_flips

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
    means = [
        {
            scene: mean(result["tests"][test]["scenes"][scene] for result in row)
            for scene in row[0]["tests"][test]["scenes"]
        }
        for row in (one, other)
    ]
    differences = [means[0][scene] - means[1][scene] for scene in means[0]]
    psnr = [[r["tests"][test]["average"]["psnr"] for r in row] for row in (one, other)]
    return {
        "difference": mean(psnr[0]) - mean(psnr[1]),
        "scenes": len(differences),
        "p_scenes": sign_flips(differences),
        "seeds": [len(values) for values in psnr],
        "p_seeds": relabelings(*psnr) if min(map(len, psnr)) > 1 else None,
    }


def contrast_line(found: dict[str, Any]) -> str:
    """One contrast for people."""
    seeds = "" if found["p_seeds"] is None else f", over seeds p = {found['p_seeds']:.3f}"
    return (
        f"{' less '.join(found['rows'])} ({found['guide'] or 'no guide'}, ×{found['budget']}, "
        f"{found['test']}): {found['difference']:+.2f} dB, over "
        f"{counted(found['scenes'], 'scene')} p = {found['p_scenes']:.3f}{seeds}"
    )
