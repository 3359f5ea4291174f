"""Scores without a ground truth, through the optional package pyiqa; off unless asked for.

They guess what people would say of a picture. A network can please them without being right, so
they stand beside PSNR and SSIM and never in their place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
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


SCORES = ("niqe", "brisque", "musiq", "clipiqa")
"""The scores that can be asked for, by pyiqa's names; what they say is in `METRICS`."""


def find_pyiqa(name: str) -> Any:
    """The package, for the score of that name.

    Raises:
        UsageError: there is none of that name, or pyiqa is not installed.
    """
    if name not in SCORES:
        raise UsageError("unknown score", got=name, expected=" | ".join(SCORES))
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
        UsageError: as `find_pyiqa`.
        MmfeError: pyiqa cannot load its weights, which it downloads when it first needs them.
    """
    import torch

    pyiqa = find_pyiqa(name)
    try:
        with redirect_stdout(sys.stderr):  # it prints what it loads: stdout is for the results
            metric = pyiqa.create_metric(name, device=device)
    except Exception as problem:  # hubs and loaders raise anything
        raise MmfeError(
            f"pyiqa could not load {name}",
            got=" ".join(str(problem).split())[:300] or type(problem).__name__,
            remedy="it downloads weights when it first needs them: try it once with a network",
        ) from problem

    def score(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), redirect_stdout(sys.stderr):
            found: torch.Tensor = metric(images.to(device, torch.float32))
        return found.detach().cpu().reshape(len(images)).double()

    return score


def score_picture(name: str, image: NDArray[np.uint8], device: torch.device) -> float:
    """The score of one (H, W, 3) uint8 picture."""
    import torch

    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    return float(load_score(name, device)(pixels)[0])
