"""Whether the routers would start saturated: a look at real embeddings before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmfe_cache.progress import Progress
from mmfe_restore.data import SampleGuidance
from mmfe_restore.model import Restorer
from mmfe_restore.recipes.schema import Recipe

EDGE = 0.01
"""An expert weight below this, or above 1 less this, is saturated.

A sigmoid's slope there is below 0.01, against 0.25 in its middle.
"""

MOST = 0.05
"""The share of saturated weights from which training warns.

A new router's sums have a standard deviation of 0.58 times the embeddings' RMS, so that 5 % are
saturated at RMS 4 and 11 % at RMS 5. What becomes of them is measured in docs/guides.md.
"""

SAMPLES = 64
"""Cached answers that are looked at, spread evenly over the training samples."""


def saturation(weights: Mapping[str, Tensor]) -> float:
    """The share of saturated expert weights among all sites, samples and experts.

    Args:
        weights: site name to S (B, N) in (0, 1), of one site at least.
    """
    every = torch.cat([one.flatten() for one in weights.values()])
    return float(((every < EDGE) | (every > 1 - EDGE)).float().mean())


def warn_if_saturated(
    restorer: Restorer,
    recipe: Recipe,
    guidance: Sequence[SampleGuidance],
    count: int,
    progress: Progress,
) -> None:
    """Say so where the routers of a new network are saturated on the embeddings it will read.

    Args:
        restorer: as it begins.
        recipe: that it will be trained by.
        guidance: of the training samples, by prompt.
        count: of the training samples.
        progress: is told.
    """
    if not guidance or "answer" not in recipe.model.reads:
        return
    chosen = [count * place // min(SAMPLES, count) for place in range(min(SAMPLES, count))]
    answers = guidance[0].read_answers(chosen, recipe.training_views[0])
    answers = answers.to(device=restorer.device, dtype=restorer.dtype)
    with torch.no_grad():
        share = saturation(restorer.router_weights(answers))
    if share < MOST:
        return
    rms = float(answers.float().square().mean().sqrt())
    cure = (
        "another guide, or embeddings of a smaller scale"
        if recipe.guide.normalise == "rms"
        else "--set guide.normalise=rms divides every embedding by its own RMS"
    )
    progress.warn(
        f"the routers start saturated: {share:.0%} of their weights for {len(chosen)} cached "
        f"answers of RMS {rms:.3g} are below {EDGE} or above {1 - EDGE}, where they hardly learn; "
        f"{cure}"
    )
