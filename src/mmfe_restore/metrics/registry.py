"""The metrics that an evaluation can measure, a row of `METRICS` each.

The command line, which chooses among them, imports this file, and this file no torch: a metric is
loaded when it is measured. CONTRIBUTING.md, "Add a metric".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from mmfe_cache.errors import UsageError
from mmfe_restore.metrics.no_reference import SCORES, find_pyiqa, load_score

if TYPE_CHECKING:
    import torch

    from mmfe_restore.metrics.psnr_ssim import Covariance

PerImage = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Takes restored and clean images, (B, C, H, W) in [0, 1]; gives (B,) values.

C is 3, or 1 where the protocol judges in Y and the metric's ``colour`` is ``"protocol"``.
"""


@dataclass(frozen=True)
class Settings:
    """What a metric needs to know before the first image.

    Attributes:
        device: that the images lie on.
        covariance: of SSIM.
    """

    device: torch.device
    covariance: Covariance = "sample"


@dataclass(frozen=True)
class MetricInfo:
    """A row of the table of metrics.

    Attributes:
        name: the key of reports; ``input_NAME`` is the degraded image's value.
        label: the heading in tables.
        explanation: one sentence for a reader who meets it for the first time.
        load: makes the function that measures; whatever it needs is loaded once, here.
        higher_is_better: whether more is better.
        unit: after a value, such as ``"dB"``; empty for a pure number.
        digits: decimals in tables.
        smallest: pixels that the shorter side must have; smaller images have no value, nan.
        undefined: why an image below ``smallest`` has no value.
        infinite: why its value is infinite; empty for a metric that never is.
        colour: ``"protocol"`` is judged in the protocol's colour space, RGB or Y alone; ``"rgb"``
            always in RGB, for what needs three channels.
        optional: measured only when asked for by name.
    """

    name: str
    label: str
    explanation: str
    load: Callable[[Settings], PerImage]
    higher_is_better: bool = True
    unit: str = ""
    digits: int = 4
    smallest: int = 1
    undefined: str = "too small"
    infinite: str = ""
    colour: Literal["protocol", "rgb"] = "protocol"
    optional: bool = False

    @property
    def heading(self) -> str:
        """The label with its unit."""
        return f"{self.label} {self.unit}" if self.unit else self.label

    def format(self, value: float | None) -> str | None:
        """A value as tables print it; None where there is none."""
        if value is None or math.isnan(value):
            return None
        return "∞" if math.isinf(value) else f"{value:.{self.digits}f}"

    def why(self, value: float, side: int) -> str:
        """Why a value that is not finite is left out of a mean.

        Args:
            value: nan or infinite.
            side: pixels on the image's shorter side.
        """
        if math.isinf(value):
            return self.infinite or f"{self.label} infinite"
        return self.undefined if side < self.smallest else f"{self.label} is not a number"


def _psnr(settings: Settings) -> PerImage:
    from mmfe_restore.metrics.psnr_ssim import psnr_per_image

    del settings
    return psnr_per_image


def _ssim(window: Literal["uniform", "gaussian"]) -> Callable[[Settings], PerImage]:
    def load(settings: Settings) -> PerImage:
        from mmfe_restore.metrics.psnr_ssim import ssim_per_image

        return partial(ssim_per_image, window=window, covariance=settings.covariance)

    return load


def _lpips(settings: Settings) -> PerImage:
    from mmfe_restore.metrics.lpips import LPIPS

    return LPIPS().to(settings.device).per_image


# Not read where they are defined: tables and names are known without torch. A test compares them.
_SSIM_WINDOWS = {"uniform": 7, "gaussian": 11}
_LPIPS_SMALLEST = 64
NO_REFERENCE_SMALLEST = 192
"""NIQE needs two of its patches of 96 pixels."""

_WINDOW = "smaller than SSIM's window"


def _no_reference(
    name: str, label: str, explanation: str, *, higher_is_better: bool = False
) -> MetricInfo:
    def load(settings: Settings) -> PerImage:
        score = load_score(name, settings.device)
        return lambda restored, clean: score(restored)

    return MetricInfo(
        name,
        label,
        explanation,
        load,
        higher_is_better=higher_is_better,
        digits=3,
        smallest=NO_REFERENCE_SMALLEST,
        undefined="too small for a score without ground truth",
        colour="rgb",
        optional=True,
    )


METRICS: Mapping[str, MetricInfo] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            MetricInfo(
                "psnr",
                "PSNR",
                "Peak signal-to-noise ratio: how small the squared error is, in decibels. Higher "
                "is better; 3 dB more is half the squared error.",
                _psnr,
                unit="dB",
                digits=2,
                infinite="identical to the ground truth, PSNR infinite",
            ),
            MetricInfo(
                "ssim_uniform",
                "SSIM 7×7",
                "Structural similarity: how alike the local patterns are, in 7×7 windows. 1 is a "
                "perfect match.",
                _ssim("uniform"),
                smallest=_SSIM_WINDOWS["uniform"],
                undefined=_WINDOW,
            ),
            MetricInfo(
                "ssim_gaussian",
                "SSIM 11×11",
                "Structural similarity in 11×11 Gaussian windows, which other papers print. Never "
                "compare it with the 7×7 one.",
                _ssim("gaussian"),
                smallest=_SSIM_WINDOWS["gaussian"],
                undefined=_WINDOW,
            ),
            MetricInfo(
                "lpips",
                "LPIPS",
                "Learned perceptual distance: how different a network finds the two images. Lower "
                "is better.",
                _lpips,
                higher_is_better=False,
                smallest=_LPIPS_SMALLEST,
                undefined="too small for LPIPS's network",
                colour="rgb",
                optional=True,
            ),
            _no_reference(
                "niqe",
                "NIQE",
                "Natural Image Quality Evaluator: how far a picture's statistics are from those of "
                "natural ones, without a ground truth. Lower is better.",
            ),
            _no_reference(
                "brisque",
                "BRISQUE",
                "Blind spatial quality: damage as a regression sees it, without a ground truth. "
                "Lower is better.",
            ),
            _no_reference(
                "musiq",
                "MUSIQ",
                "What a multi-scale transformer says people would say, without a ground truth. "
                "Higher is better.",
                higher_is_better=True,
            ),
            _no_reference(
                "clipiqa",
                "CLIP-IQA",
                "Whether CLIP finds a picture good rather than bad, without a ground truth. Higher "
                "is better.",
                higher_is_better=True,
            ),
        )
    }
)
"""Every metric by its name, in the order of reports."""


Figure = str
"""A reported value of an image: a metric's name, or ``input_`` and its name for the input."""

FIGURES: tuple[Figure, ...] = tuple(
    figure for name in METRICS for figure in (f"input_{name}", name)
)
"""Every figure an image can have, in the order reports show them."""


def metric_of(figure: Figure) -> MetricInfo:
    """The metric behind a reported figure: ``input_psnr`` and ``psnr`` are both PSNR."""
    return METRICS[figure.removeprefix("input_")]


def chosen_metrics(extra: tuple[str, ...] = ()) -> tuple[MetricInfo, ...]:
    """Those that are always measured, and the optional ones that are asked for by name.

    Raises:
        UsageError: there is none of that name, or what it needs is not installed.
    """
    for name in extra:
        if name not in METRICS:
            raise UsageError("unknown metric", got=name, expected=" | ".join(METRICS))
        if name in SCORES:
            find_pyiqa(name)  # a missing package is said before the first image
    return tuple(m for m in METRICS.values() if not m.optional or m.name in extra)
