"""What one image scores, before and after restoration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mmfe_cache.samples import ImageArray
from mmfe_restore.evaluation.protocols import Protocol
from mmfe_restore.metrics.base import Channel, luma
from mmfe_restore.metrics.registry import METRICS, PerImage

Figure = str
"""A reported value of an image: a metric's name, or ``input_`` and its name for the input."""

FIGURES: tuple[Figure, ...] = tuple(
    figure for name in METRICS for figure in (f"input_{name}", name)
)
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
        values: figure to value; nan where the image is too small for the metric, inf for the
            PSNR of identical images.
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
    metrics: Mapping[str, PerImage],
) -> list[dict[str, float]]:
    """Every metric of a batch against its ground truth.

    Args:
        image: (B, 3, H, W) in [0, 1], already rounded where the protocol rounds.
        clean: likewise.
        protocol: says whether luma is rounded.
        channel: the colour space they are judged in.
        metrics: name to function, loaded.

    Returns:
        metric to value of each image; nan where the image is too small for it.
    """
    judged = {"rgb": (image, clean), "protocol": (image, clean)}
    if channel == "y":
        judged["protocol"] = (
            luma(image, rounded=protocol.rounded),
            luma(clean, rounded=protocol.rounded),
        )
    columns: dict[str, list[float]] = {}
    for name, measure in metrics.items():
        metric = METRICS[name]
        if min(image.shape[-2:]) < metric.smallest:
            columns[name] = [NAN] * len(image)
        else:
            columns[name] = measure(*judged[metric.colour]).tolist()
    return [
        {name: values[index] for name, values in columns.items()} for index in range(len(image))
    ]


def join_figures(before: dict[str, float], after: dict[str, float]) -> dict[Figure, float]:
    """One image's figures, before and after, under their reported names."""
    found = {f"input_{name}": value for name, value in before.items()} | after
    return {name: found[name] for name in FIGURES if name in found}
