"""What one image scores, before and after restoration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from mmfe_cache.samples import ImageArray
from mmfe_restore.evaluation.protocols import Protocol
from mmfe_restore.metrics.lpips import LPIPS
from mmfe_restore.metrics.luma import luma
from mmfe_restore.metrics.psnr import Channel, psnr_per_image
from mmfe_restore.metrics.ssim import WINDOW_SIZES, Window, ssim_per_image

Figure = Literal[
    "input_psnr", "psnr", "input_ssim_uniform", "ssim_uniform", "input_ssim_gaussian",
    "ssim_gaussian", "input_lpips", "lpips",
]  # fmt: skip

FIGURES: tuple[Figure, ...] = get_args(Figure)
"""Every figure an image can have, in the order reports show them."""

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The figures of one test image.

    Attributes:
        id: the sample's id.
        label: its class.
        scene: its clean photograph's name.
        height: of what was judged, after any crop, in pixels.
        width: likewise.
        values: figure to value; PSNR in dB and inf for identical images, SSIM at most 1 and
            nan where the image is smaller than the window.
    """

    id: str
    label: str
    scene: str
    height: int
    width: int
    values: dict[Figure, float]

    @property
    def gain(self) -> float:
        """PSNR of the restored image less that of the input, dB; nan where either is not finite."""
        before, after = self.values["input_psnr"], self.values["psnr"]
        return after - before if math.isfinite(before) and math.isfinite(after) else NAN


def to_tensor(image: ImageArray) -> torch.Tensor:
    """(1, 3, H, W) float32 in [0, 1] of an (H, W, 3) uint8 image."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255.0


def quality(
    image: torch.Tensor,
    clean: torch.Tensor,
    protocol: Protocol,
    channel: Channel,
    lpips: LPIPS | None = None,
) -> list[dict[str, float]]:
    """Figures of a batch against its ground truth.

    Args:
        image: (B, 3, H, W) in [0, 1], already rounded where the protocol rounds.
        clean: likewise.
        protocol: rounding and covariance.
        channel: the colour space they are judged in.
        lpips: the perceptual distance, where it is wanted.

    Returns:
        ``psnr``, ``ssim_uniform``, ``ssim_gaussian`` and, if asked for, ``lpips`` of each image.
    """
    judged, truth = image, clean
    if channel == "y":
        judged = luma(image, rounded=protocol.rounded)
        truth = luma(clean, rounded=protocol.rounded)
    columns = {
        "psnr": psnr_per_image(judged, truth).tolist(),
        "ssim_uniform": _ssim(judged, truth, "uniform", protocol),
        "ssim_gaussian": _ssim(judged, truth, "gaussian", protocol),
    }
    if lpips is not None:
        columns["lpips"] = lpips.per_image(image, clean).tolist()
    return [
        {name: values[index] for name, values in columns.items()} for index in range(len(image))
    ]


def _ssim(
    image: torch.Tensor, clean: torch.Tensor, window: Window, protocol: Protocol
) -> list[float]:
    if min(image.shape[-2:]) < WINDOW_SIZES[window]:
        return [NAN] * len(image)
    return ssim_per_image(image, clean, window=window, covariance=protocol.covariance).tolist()


def join_figures(before: dict[str, float], after: dict[str, float]) -> dict[Figure, float]:
    """One image's figures, before and after, under their reported names."""
    found = {f"input_{name}": value for name, value in before.items()} | after
    return {name: found[name] for name in FIGURES if name in found}
