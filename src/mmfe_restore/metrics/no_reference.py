"""Scores without a ground truth, through the optional package pyiqa; off unless asked for.

They guess what people would say of a picture. A network can please them without being right, so
they stand beside PSNR and SSIM and never in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from mmfe_cache.errors import MmfeError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

LICENCE = (
    "these scores come from pyiqa, which is for non-commercial use "
    "(CC BY-NC-SA 4.0 and the NTU S-Lab licence)"
)


@dataclass(frozen=True)
class NoReferenceScore:
    """A score of pyiqa's.

    Attributes:
        name: pyiqa's name of it.
        label: as tables print it.
        explanation: one sentence.
        higher_is_better: whether more is better.
    """

    name: str
    label: str
    explanation: str
    higher_is_better: bool


SCORES = {
    score.name: score
    for score in (
        NoReferenceScore(
            "niqe",
            "NIQE",
            "Natural Image Quality Evaluator: how far a picture's statistics are from those of "
            "natural ones, without a ground truth. Lower is better.",
            higher_is_better=False,
        ),
        NoReferenceScore(
            "brisque",
            "BRISQUE",
            "Blind spatial quality: damage as a regression sees it, without a ground truth. Lower "
            "is better.",
            higher_is_better=False,
        ),
        NoReferenceScore(
            "musiq",
            "MUSIQ",
            "What a multi-scale transformer says people would say, without a ground truth. Higher "
            "is better.",
            higher_is_better=True,
        ),
        NoReferenceScore(
            "clipiqa",
            "CLIP-IQA",
            "Whether CLIP finds a picture good rather than bad, without a ground truth. Higher is "
            "better.",
            higher_is_better=True,
        ),
    )
}
"""The scores that can be asked for, by name."""


def find_score(name: str) -> NoReferenceScore:
    """A score by its name.

    Raises:
        UsageError: there is none of that name, or pyiqa is not installed.
    """
    if name not in SCORES:
        raise UsageError("unknown score", got=name, expected=" | ".join(SCORES))
    _pyiqa(name)
    return SCORES[name]


def _pyiqa(name: str) -> Any:
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(
            f"{name} needs pyiqa, which is not installed; it is for non-commercial use",
            remedy="pip install 'mmfe[score]'",
        ) from None
    return pyiqa


@cache
def load_score(name: str, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that scores (B, 3, H, W) RGB in [0, 1]: (B,) float64.

    Raises:
        UsageError: as `find_score`.
        MmfeError: pyiqa cannot load its weights, which it downloads when it first needs them.
    """
    import torch

    find_score(name)
    try:
        metric = _pyiqa(name).create_metric(name, device=device)
    except Exception as problem:  # hubs and loaders raise anything
        raise MmfeError(
            f"pyiqa could not load {name}",
            got=" ".join(str(problem).split())[:300] or type(problem).__name__,
            remedy="it downloads weights when it first needs them: try it once with a network",
        ) from problem

    def score(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = metric(images.to(device, torch.float32))
        return found.detach().cpu().reshape(len(images)).double()

    return score


def score_picture(name: str, image: NDArray[np.uint8], device: torch.device) -> float:
    """The score of one (H, W, 3) uint8 picture."""
    import torch

    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    return float(load_score(name, device)(pixels)[0])
