"""Values that an option chooses among: help and completion show them, another one exits with 2.

Where what defines them imports torch they stand here as literals; a test holds both equal.
"""

from __future__ import annotations

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
