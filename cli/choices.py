"""Values that an option chooses among: help and completion show them, another one exits with 2.

Most are defined elsewhere and stand here once more: what defines them may import torch, and a type
checker needs them spelt out. A test (`tests/cli/test_alike.py`) holds both equal. Metrics are taken
from their table, which imports no torch.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from mmfe_cache.guides.registry import ToyKind as ToyKind
from mmfe_cache.machine import Precision as Precision
from mmfe_restore.metrics.no_reference import SCORES
from mmfe_restore.metrics.registry import FIGURES, METRICS

MAX_SEED = 2**32 - 1
"""The largest seed that every generator takes."""

Split = Literal["train", "test"]
Table = Literal["table4a", "table4b", "table5a", "table5b", "table5c", "tableS1", "prompts"]
Protocol = Literal["mmfe", "promptir", "moce-ir", "onerestore", "restormer"]
TableFormat = Literal["text", "markdown", "latex"]
Site = Literal["encoder2", "encoder3", "latent_in", "latent_out", "decoder3", "decoder2"]


class Composition(Enum):
    """The classes of CDD11; an option that is repeated takes no Literal."""

    low = "low"
    haze = "haze"
    rain = "rain"
    snow = "snow"
    low_haze = "low_haze"
    low_rain = "low_rain"
    low_snow = "low_snow"
    haze_rain = "haze_rain"
    haze_snow = "haze_snow"
    low_haze_rain = "low_haze_rain"
    low_haze_snow = "low_haze_snow"


class Score(Enum):
    """Without a ground truth, by pyiqa."""

    _ignore_ = "members score"
    members = vars()
    for score in SCORES:
        members[score] = score


class Metric(Enum):
    """What an evaluation can measure."""

    _ignore_ = "members metric"
    members = vars()
    for metric in METRICS:
        members[metric] = metric


class Figure(Enum):
    """What two reports can be compared by; ``ssim`` is the one that the protocol publishes."""

    _ignore_ = "members figure"
    members = vars()
    for figure in dict.fromkeys(("psnr", "ssim", *METRICS, *FIGURES)):
        members[figure] = figure


OPTIONAL_METRICS = tuple(name for name, metric in METRICS.items() if metric.optional)
"""Those that are measured where they are asked for."""


def tile_from(text: str) -> Literal["auto", "off"] | int:
    """What ``--tile`` says.

    Raises:
        UsageError: nothing that there is.
    """
    from mmfe_cache.errors import UsageError

    if text == "auto" or text == "off":
        return text
    pixels = _pixels(text)
    if pixels >= 64:
        return pixels
    raise UsageError("unknown tile", got=f"--tile {text}", expected="auto, off, or at least 64")


def _pixels(text: str) -> int:
    """A whole number of at most six digits; 0 for anything else."""
    return int(text) if text.isdecimal() and len(text) <= 6 else 0


def window_from(text: str) -> Literal["auto"] | int | None:
    """What ``--window`` says; None for whole images.

    Raises:
        UsageError: nothing that there is.
    """
    from mmfe_cache.errors import UsageError
    from mmfe_restore.recipes.schema import WINDOW_UNIT

    if text == "auto":
        return text
    if text == "off":
        return None
    pixels = _pixels(text)
    if pixels and pixels % WINDOW_UNIT == 0:
        return pixels
    expected = f"auto, off, or a multiple of {WINDOW_UNIT}"
    raise UsageError("unknown window", got=f"--window {text}", expected=expected)


def without_guide(guide: str | None) -> Literal["none"]:
    """What ``--no-guide`` makes of ``--guide``.

    Raises:
        UsageError: it names one.
    """
    from mmfe_cache.errors import UsageError

    if guide not in (None, "none"):
        raise UsageError(
            "give --guide or --no-guide, not both",
            got=f"--guide {guide} --no-guide",
            remedy="leave one of them out",
        )
    return "none"
