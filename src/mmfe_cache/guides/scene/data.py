"""Synthetic pictures for the guide ``scene``: photographs × the CDD11 degradation model."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmfe_cache.degradations import (
    CLEAR,
    COMPOSITIONS,
    KINDS,
    PROCEDURAL,
    DegradationConfig,
    degrade,
)
from mmfe_cache.degradations.light import AIRLIGHT, NOISE
from mmfe_cache.images import read_noted
from mmfe_cache.samples import ImageArray
from mmfe_cache.seeds import generator
from mmfe_cache.views import View

from .network import STRIDE

CLEAN_SHARE = 1 / 4
"""How many training pictures stay clean; the eleven compositions share the rest evenly. That is
more than a composition's share: what is seen where nothing is there costs a good photograph."""

UNIFORM_SHARE = 0.5
"""How many draw each severity from U(0, 1) instead of CDD11's ranges: weak ones occur."""

LONG_SIDES = (128, 640)
"""Photographs shrink to a long side drawn log-uniformly from here; smaller ones stay."""

SHRUNK_SHARE = 0.4
"""How many suffer at a larger size and shrink afterwards, as the guide shrinks a large photograph
to its pixel budget. Noise and streaks fade on the way. A network that never saw this takes a dark
picture whose noise has faded for a bright one."""

SHRINKING = (1.0, 2.5)
"""By what factor those shrink, log-uniformly."""

LARGE_SHARE = 0.25
"""How many are enlarged first, to a long side drawn from `LARGE_SIDES`, and keep that size: flakes
and streaks grow with the picture, and a guide that looks at a large one as it is must know them."""

LARGE_SIDES = (640, 1080)
"""In pixels; at most `MOST_ENLARGED` times a photograph's own."""

MOST_ENLARGED = 2.25
"""Camera pictures of this size are not sharp to the pixel either, but not soft as putty."""

LONGEST = 1100
"""The longest side at which a picture suffers: rendering takes time."""

AHEAD = 192
"""How many pictures the workers may be ahead of the training; bounds the memory."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One degraded picture and its truth.

    Attributes:
        degraded: (H, W, 3) uint8.
        clean: (H, W, 3) uint8.
        severities: (4,) float32 in the order of ``KINDS``, 0 where absent.
        traits: (2,) float32, see `applied_traits`.
        present: (4,) bool.
        composition: its class, or ``"clear"``.
    """

    degraded: ImageArray
    clean: ImageArray
    severities: NDArray[np.float32]
    traits: NDArray[np.float32]
    present: NDArray[np.bool_]
    composition: str


def compose(
    clean: ImageArray,
    composition: str,
    *,
    seed_parts: tuple[str | int, ...],
    uniform: bool,
    config: DegradationConfig = PROCEDURAL,
    photograph: str | None = None,
) -> Rendered:
    """Degrade ``clean`` by ``composition``.

    Args:
        clean: (H, W, 3) uint8.
        composition: one of ``COMPOSITIONS``, or ``"clear"``.
        seed_parts: what the randomness is drawn from.
        uniform: draw each severity from U(0, 1) instead of CDD11's ranges.
        config: masks and maps to use instead of procedural ones.
        photograph: the name by which ``config`` finds its maps.
    """
    present = np.array([kind in composition.split("_") for kind in KINDS])
    if composition == CLEAR:
        none = np.zeros(len(KINDS), np.float32)
        return Rendered(clean, clean, none, applied_traits({}), present, composition)
    wanted = None
    if uniform:
        draw = generator("scene-severity", *seed_parts)
        wanted = {kind: float(draw.uniform()) for kind in composition.split("_")}
    made = degrade(
        clean,
        composition,
        seed_parts=seed_parts,
        severities=wanted,
        config=config,
        photograph=photograph,
    )
    truth = np.array([made.severities.get(kind, 0.0) for kind in KINDS], np.float32)
    traits = applied_traits(made.parameters)
    return Rendered(made.image, clean, truth, traits, present, composition)


def applied_traits(parameters: Mapping[str, Mapping[str, float]]) -> NDArray[np.float32]:
    """The traits that lie in how a picture was degraded: all of `TRAITS` but the last.

    Args:
        parameters: of each degradation, as `degrade` records them.

    Returns:
        (2,) in [0, 1]; NaN where the degradation that has the trait is not there.
    """
    darkest, brightest = AIRLIGHT
    airlight = parameters.get("haze", {}).get("airlight", np.nan)
    noise = parameters.get("low", {}).get("noise", np.nan)
    traits = np.array([(airlight - darkest) / (brightest - darkest), noise / NOISE[1]], np.float32)
    return np.clip(traits, 0, 1)  # varied haze may be darker or brighter than published; NaN stays


def render(photo: Path, seed: int, number: int, config: DegradationConfig = PROCEDURAL) -> Rendered:
    """The ``number``-th training picture: a photograph at some size, degraded somehow."""
    draw = generator("scene", seed, number)
    # JPEG decoding at an eighth or a half of the size is what `draft` is for, but it changes the
    # pixels by format; one path for all formats is worth the millisecond.
    clean, _ = read_noted(photo)  # `clean_photographs` tells of its notes, once
    large = bool(draw.uniform() < LARGE_SHARE)
    long_side = float(np.exp(draw.uniform(*np.log(LARGE_SIDES if large else LONG_SIDES))))
    scale = min(MOST_ENLARGED if large else 1.0, long_side / max(clean.shape[:2]))
    size = [max(64, round(side * scale)) for side in clean.shape[:2]]
    shrunk_later = bool(draw.uniform() < SHRUNK_SHARE) and not large
    if large:
        clean = _resize(clean, size)
    elif shrunk_later:
        factor = float(np.exp(draw.uniform(*np.log(SHRINKING))))
        factor = max(1.0, min(factor, LONGEST / max(size)))
        clean = _resize(clean, [round(side * factor) for side in size])
    elif draw.uniform() < 0.5:
        clean = _resize(clean, size)
    else:
        side = [min(length, wanted) for length, wanted in zip(clean.shape[:2], size, strict=True)]
        top, left = (
            int(draw.integers(0, length - s + 1))
            for length, s in zip(clean.shape[:2], side, strict=True)
        )
        clean = clean[top : top + side[0], left : left + side[1]]
    if draw.uniform() < 0.5:
        clean = clean[:, ::-1]
    clean = np.ascontiguousarray(clean)
    composition = CLEAR
    if draw.uniform() >= CLEAN_SHARE:
        composition = COMPOSITIONS[int(draw.integers(len(COMPOSITIONS)))]
    uniform = bool(draw.uniform() < UNIFORM_SHARE)
    made = compose(
        clean, composition, seed_parts=("scene", seed, number), uniform=uniform, config=config
    )
    if shrunk_later:
        degraded, clean = (_resize(image, size) for image in (made.degraded, made.clean))
        made = replace(made, degraded=degraded, clean=clean)
    return made


def _resize(image: ImageArray, size: Sequence[int]) -> ImageArray:
    """To (height, width) pixels, antialiased bicubic."""
    height, width = size
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def stream(
    photos: Sequence[Path], seed: int, workers: int, config: DegradationConfig = PROCEDURAL
) -> Generator[Rendered, None, None]:
    """Training pictures 0, 1, 2, … without end, rendered ahead by worker processes.

    The order and the pixels do not depend on the number of workers; 0 renders in this process.
    """
    if workers == 0:
        for number, photo in enumerate(_endless(photos, seed)):
            yield render(photo, seed, number, config)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max_workers=workers, mp_context=context)
    waiting: deque[Future[Rendered]] = deque()
    try:
        for number, photo in enumerate(_endless(photos, seed)):
            waiting.append(pool.submit(render, photo, seed, number, config))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _endless(photos: Sequence[Path], seed: int) -> Iterator[Path]:
    """The photographs in a new order every time round."""
    lap = 0
    while True:
        for index in generator("scene-order", seed, lap).permutation(len(photos)):
            yield photos[int(index)]
        lap += 1


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
