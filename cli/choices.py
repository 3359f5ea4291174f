"""Values that an option chooses among: help and completion show them, another one exits with 2.

Most are defined elsewhere and stand here once more: what defines them may import torch, and a type
checker needs them spelt out. A test (`tests/cli/test_alike.py`) holds both equal.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from mmfe_cache.guides.registry import ToyKind as ToyKind
from mmfe_cache.machine import Precision as Precision

MAX_SEED = 2**32 - 1
"""The largest seed that every generator takes."""

Split = Literal["train", "test"]
Table = Literal["table4a", "table4b", "table5a", "table5b", "table5c", "tableS1", "prompts"]
Protocol = Literal["mmfe", "promptir", "moce-ir", "onerestore", "restormer"]
TableFormat = Literal["text", "markdown", "latex"]
Site = Literal["encoder2", "encoder3", "latent_in", "latent_out", "decoder3", "decoder2"]
Figure = Literal[
    "psnr",
    "ssim",
    "ssim_uniform",
    "ssim_gaussian",
    "lpips",
    "niqe",
    "brisque",
    "musiq",
    "clipiqa",
    "input_psnr",
    "input_ssim_uniform",
    "input_ssim_gaussian",
    "input_lpips",
    "input_niqe",
    "input_brisque",
    "input_musiq",
    "input_clipiqa",
]
"""``ssim`` is the one whose window the protocol publishes."""


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

    niqe = "niqe"
    brisque = "brisque"
    musiq = "musiq"
    clipiqa = "clipiqa"


class Metric(Enum):
    """What an evaluation can measure."""

    psnr = "psnr"
    ssim_uniform = "ssim_uniform"
    ssim_gaussian = "ssim_gaussian"
    lpips = "lpips"
    niqe = "niqe"
    brisque = "brisque"
    musiq = "musiq"
    clipiqa = "clipiqa"


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
