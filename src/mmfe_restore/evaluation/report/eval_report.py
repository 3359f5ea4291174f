"""The outcome of an evaluation."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mmfe_restore.evaluation.protocols import Protocol
from mmfe_restore.evaluation.published import comparison_for
from mmfe_restore.evaluation.report.pictures import Pictures
from mmfe_restore.evaluation.scores import ImageScore
from mmfe_restore.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    Interval,
    Summary,
    bootstrap,
    bootstrap_gain,
    figures_of,
    summarise,
)

SYNTHETIC = "mmfe data synth"
"""The layout of a set that `mmfe data synth` made."""


@dataclass(frozen=True)
class EvalReport:
    """How a restorer did on a test set.

    Attributes:
        dataset: the dataset's name.
        split: its split.
        recipe: the name of the recipe that trained the restorer.
        checkpoint: the folder of the weights; None where there is none.
        protocol: how it was measured.
        crop_multiple: images were centre-cropped to a multiple of this; 1 means whole images.
        view: the guide's view; None for an unguided run.
        guide: the guide's name; None for an unguided run.
        tokens: which reading of the tokens; None for an unguided run.
        control: ``none``, ``shuffled`` or ``constant`` embeddings.
        parameters: of the network.
        scores: of every image, in the test set's order.
        pictures: what the page shows.
        seconds: the evaluation took.
        guide_calls: samples that any guide encoded meanwhile.
        notes: what a reader should know besides.
        layout: of the test set on disk, as the data set names it.
        published_test_set: whether these are the images that published figures are of.
    """

    dataset: str
    split: str
    recipe: str
    checkpoint: str | None
    protocol: Protocol
    crop_multiple: int
    view: str | None
    guide: str | None
    tokens: str | None
    control: str
    parameters: int
    scores: tuple[ImageScore, ...]
    pictures: tuple[Pictures, ...] = ()
    seconds: float = 0.0
    guide_calls: int = 0
    notes: tuple[str, ...] = field(default=())
    layout: str = ""
    published_test_set: bool = False

    @cached_property
    def summary(self) -> Summary:
        """Class means, their mean, counts, and what was left out."""
        table = comparison_for(self.dataset)
        return summarise(self.scores, () if table is None else table.columns)

    @cached_property
    def intervals(self) -> tuple[dict[str, dict[Any, Interval]], dict[Any, Interval]]:
        """Bootstrap intervals per class and figure, and of the average."""
        return bootstrap(self.scores)

    @cached_property
    def gain_intervals(self) -> tuple[dict[str, Interval], Interval]:
        """Bootstrap intervals of the gains, paired by image: per class, and of the average."""
        return bootstrap_gain(self.scores)

    @property
    def test_set(self) -> str:
        """The test set for people, so that no set of one's own is taken for the published one."""
        if self.published_test_set:
            return f"the published test set of {self.dataset}"
        if self.layout == SYNTHETIC:
            return f"a synthetic {self.dataset} set"
        return f"{self.dataset}/{self.split}"

    @property
    def crop(self) -> str:
        """What was judged of an image, for people."""
        if self.crop_multiple == 1:
            return "whole image"
        return f"centre crop to a multiple of {self.crop_multiple}"

    @property
    def rounding(self) -> str:
        """``"none"``, or ``"uint8"`` where the restored image is rounded to 8 bits first."""
        return "uint8" if self.protocol.rounded else "none"

    def to_json(self) -> dict[str, Any]:
        """Plain values; figures that are not finite become None."""
        classes, average = self.intervals
        gains, gain = self.gain_intervals
        summary = self.summary
        return {
            "dataset": self.dataset,
            "split": self.split,
            "published_test_set": self.published_test_set,
            "recipe": self.recipe,
            "checkpoint": self.checkpoint,
            "parameters": self.parameters,
            "protocol": self.protocol.name,
            "protocol_details": self.protocol.to_json(),
            "crop": self.crop,
            "range": 1.0,
            "rounding": self.rounding,
            "view": self.view,
            "guide": self.guide,
            "tokens": self.tokens,
            "control": self.control,
            "average": {**_finite(summary.average), **summary.gain.to_json()},
            "classes": {
                name: {**_finite(means), **summary.gains[name].to_json()}
                for name, means in summary.classes.items()
            },
            "intervals": {
                "level": LEVEL,
                "resamples": RESAMPLES,
                "resampled": "scenes",
                "average": _plain({**average, "gain": gain}),
                "classes": {
                    name: _plain({**found, "gain": gains[name]}) for name, found in classes.items()
                },
            },
            "counts": {"total": len(self.scores), **summary.counts},
            "images": [
                {
                    "id": s.id,
                    "label": s.label,
                    "scene": s.scene,
                    "height": s.height,
                    "width": s.width,
                    **_finite({**s.values, "gain": s.gain}),
                }
                for s in self.scores
            ],
            "guide_calls": self.guide_calls,
            "notes": [*self.notes, *summary.notes],
            "seconds": round(self.seconds, 2),
        }

    def csv(self) -> str:
        """A line per image; an infinite PSNR reads ``inf``, a missing SSIM ``nan``."""
        figures = figures_of(self.scores)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "label", "scene", "height", "width", *figures])
        for s in self.scores:
            values = [f"{s.values[name]:.8f}" for name in figures]
            writer.writerow([s.id, s.label, s.scene, s.height, s.width, *values])
        return stream.getvalue()


def _finite(values: Mapping[Any, float]) -> dict[str, float | None]:
    return {str(k): v if math.isfinite(v) else None for k, v in values.items()}


def _plain(intervals: Mapping[Any, Interval]) -> dict[str, list[float | None]]:
    return {
        str(name): [v if math.isfinite(v) else None for v in (found.low, found.high)]
        for name, found in intervals.items()
    }
