"""Batches for the guide ``scene``: views of synthetic pictures, drawn from a rolling memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmfe_cache.degradations import PROCEDURAL, DegradationConfig
from mmfe_cache.guides.scene.data import Rendered, stream
from mmfe_cache.guides.scene.network import STRIDE
from mmfe_cache.seeds import generator
from mmfe_cache.views import View

SIDES = (64, 96, 128, 160, 192, 224, 320)
"""The sizes of view it learns at, in pixels."""

SIDE_ODDS = ((0.8, 0.2, 0, 0, 0, 0, 0), (0.25, 0.15, 0.15, 0.1, 0.1, 0.1, 0.15))
"""How often each occurs, at first and then: what streaks look like is learnt on small windows,
many to the second; how they look in whole pictures of every size comes on top."""

WHOLE_ODDS = (0.2, 0.5)
"""How often a view is the whole picture instead of a window of it, at first and then."""

FIRST_PART = 0.6
"""The share of the steps that counts as "at first"."""

PIXELS = 12 * 128 * 128
"""Pixels of one batch: the larger the view, the fewer pictures, but `LEAST` at least."""

LEAST = 8
"""Pictures of one batch: the relations between them are learnt too."""

MEMORY = 1536
"""How many pictures are kept at hand; each new one takes the oldest one's place."""

FRESH = 0.1
"""New pictures per picture trained on: rendering one costs less than a step on it."""


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """B views of r × r pixels and their truth.

    Attributes:
        degraded: (B, 3, r, r) in [0, 1].
        clean: (B, 6, h, w) statistics of the clean picture, see `clean_statistics`.
        severities: (B, 4) in [0, 1], 0 where absent.
        present: (B, 4) bool.
        traits: (B, 3), see `TRAITS`; NaN where there is none.
    """

    degraded: Tensor
    clean: Tensor
    severities: Tensor
    present: Tensor
    traits: Tensor


def training_batches(
    photos: Sequence[Path],
    seed: int,
    steps: int,
    workers: int,
    part: int | None = None,
    config: DegradationConfig = PROCEDURAL,
) -> Iterator[SceneBatch]:
    """One batch a step.

    Args:
        photos: to take pictures from.
        seed: of pictures and views.
        steps: how many batches.
        workers: rendering processes.
        part: take the first (0) or second (1) part's views throughout; None goes by the step.
        config: masks and maps to use instead of procedural ones.
    """
    draw = generator("scene-batches", seed)
    rendering = stream(photos, seed, workers, config)
    # A short run needs no long memory to begin with.
    memory = [next(rendering) for _ in range(min(256, MEMORY, 16 * steps))]
    oldest, owed = 0, 0.0
    try:
        for step in range(steps):
            now = int(step >= FIRST_PART * steps) if part is None else part
            side = int(draw.choice(SIDES, p=SIDE_ODDS[now]))
            count = max(LEAST, PIXELS // side**2)
            owed += FRESH * count
            while owed >= 1:
                owed -= 1
                if len(memory) < MEMORY:
                    memory.append(next(rendering))
                else:
                    memory[oldest] = next(rendering)
                    oldest = (oldest + 1) % MEMORY
            chosen = [memory[int(i)] for i in draw.permutation(len(memory))[:count]]
            yield _collate(chosen, side, WHOLE_ODDS[now], draw)
    finally:
        rendering.close()


def _collate(
    chosen: Sequence[Rendered], side: int, whole: float, draw: np.random.Generator
) -> SceneBatch:
    degraded: list[Tensor] = []
    clean: list[Tensor] = []
    for item in chosen:
        if draw.uniform() < whole:
            view = View("whole", side)
        else:
            view = View("crop", side, int(draw.integers(64)))
        for image, into in ((item.degraded, degraded), (item.clean, clean)):
            into.append(torch.from_numpy(np.array(view.render(image))))
    truth = torch.from_numpy(np.stack([item.severities for item in chosen]))
    present = torch.from_numpy(np.stack([item.present for item in chosen]))
    statistics = clean_statistics(_to_float(clean))
    applied = torch.from_numpy(np.stack([item.traits for item in chosen]))
    luminance = statistics[:, :3].mean(dim=(1, 2, 3))
    traits = torch.cat([applied, luminance[:, None]], dim=1)
    return SceneBatch(_to_float(degraded), statistics, truth, present, traits)


def _to_float(images: Sequence[Tensor]) -> Tensor:
    """(B, 3, H, W) float32 in [0, 1] from uint8 (H, W, 3) images of one size."""
    return torch.stack(list(images)).permute(0, 3, 1, 2).float().div_(255)


def clean_statistics(clean_BCHW: Tensor) -> Tensor:
    """(B, 6, h, w): mean and standard deviation of R, G, B in each cell of 16 × 16 pixels."""
    mean = F.avg_pool2d(clean_BCHW, STRIDE)
    square = F.avg_pool2d(clean_BCHW.square(), STRIDE)
    return torch.cat([mean, 2 * (square - mean.square()).clamp_min(0).sqrt()], dim=1)
