"""What one image scores, and the class means and average of many, with how sure they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.io import counted
from mmfe_cache.samples import ImageArray
from mmfe_cache.seeds import generator
from mmfe_restore.evaluation.published import Protocol
from mmfe_restore.metrics.registry import FIGURES, METRICS, Figure, PerImage, metric_of

if TYPE_CHECKING:
    import torch

    from mmfe_restore.metrics.base import Channel

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The figures of one test image.

    Attributes:
        id: the sample's id.
        label: its class.
        scene: what it shows, as `Sample.scene`.
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
    import torch

    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255.0


def to_uint8(image: torch.Tensor) -> ImageArray:
    """(H, W, 3) uint8 of one (3, H, W) image in [0, 1]."""
    import torch

    rounded = (image * 255.0).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(1, 2, 0).cpu().numpy())


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
    from mmfe_restore.metrics.base import luma

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


Means = dict[Figure, float]

RESAMPLES = 2000
"""Bootstrap resamples behind every interval."""

FEW_SCENES = 20
"""Below this many scenes of a class a report warns of its interval."""

LEVEL = 0.95
"""Coverage of every interval."""


@dataclass(frozen=True)
class Interval:
    """A bootstrap confidence interval of `LEVEL`."""

    low: float
    high: float

    def to_json(self) -> list[float | None]:
        """Its two ends; None for one that is not finite."""
        return [end if math.isfinite(end) else None for end in (self.low, self.high)]


@dataclass(frozen=True)
class Gain:
    """How many dB of PSNR restoration gained, image by image.

    A difference of two means would compare different images wherever one side lacks a value:
    an input identical to its ground truth has an infinite PSNR and drops out of the input's
    mean only. So the gain is taken per image first, over the images that have both.

    Attributes:
        mean: of the per-image gains, dB; for the average, of the class gains; nan without any.
        images: that have both values.
        left_out: that lack one.
    """

    mean: float
    images: int
    left_out: int

    @property
    def omission(self) -> str:
        """Such as ``"9 of 10"``; empty where nothing is left out."""
        return f"{self.left_out} of {self.images + self.left_out}" if self.left_out else ""

    def to_json(self) -> dict[str, float | int | None]:
        """The keys that stand beside a row's means."""
        return {
            "gain": self.mean if math.isfinite(self.mean) else None,
            "gain_images": self.images,
            "gain_left_out": self.left_out,
        }


@dataclass(frozen=True)
class Summary:
    """The means of a set of scores.

    Attributes:
        classes: label to its means, in the order the labels appear in the test set.
        average: mean of the class means, which is what Table 1 calls "Average".
        counts: label to its number of images.
        gains: label to its gain.
        gain: the mean of the class gains.
        notes: what was left out, for people.
    """

    classes: Mapping[str, Means]
    average: Means
    counts: Mapping[str, int]
    gains: Mapping[str, Gain]
    gain: Gain
    notes: tuple[str, ...]


def summarise(scores: Sequence[ImageScore], order: Sequence[str] = ()) -> Summary:
    """Class means and their mean; values that are not finite are left out, with a note.

    Args:
        scores: of every image.
        order: labels in the order to show them; any others follow as they appear.
    """
    figures = figures_of(scores)
    groups = by_label(scores, order)
    classes: dict[str, Means] = {}
    notes: list[str] = []
    for label, members in groups.items():
        classes[label] = {name: _mean(s.values[name] for s in members) for name in figures}
        notes += _omissions(label, members, figures)
    average: Means = {name: _mean(means[name] for means in classes.values()) for name in figures}
    gains = {label: _gain(members) for label, members in groups.items()}
    gain = Gain(
        _mean(found.mean for found in gains.values()),
        sum(found.images for found in gains.values()),
        sum(found.left_out for found in gains.values()),
    )
    notes += _missing_classes(classes, figures)
    notes += [
        f"{label}: {found.omission} images left out of the gain (it takes a finite PSNR before and "
        "after)"
        for label, found in gains.items()
        if found.left_out and _has_gain(figures)
    ]
    notes += _thin(groups)
    counts = {label: len(members) for label, members in groups.items()}
    return Summary(classes, average, counts, gains, gain, tuple(notes))


def _has_gain(figures: Iterable[Figure]) -> bool:
    return {"psnr", "input_psnr"} <= set(figures)


def _gain(members: Sequence[ImageScore]) -> Gain:
    if not _has_gain(members[0].values):
        return Gain(math.nan, 0, len(members))
    gains = [score.gain for score in members]
    finite = [value for value in gains if math.isfinite(value)]
    return Gain(_mean(finite), len(finite), len(gains) - len(finite))


def _missing_classes(classes: Mapping[str, Means], figures: Iterable[Figure]) -> list[str]:
    """A class without a mean is missing from the average, which then is one of fewer classes."""
    notes: list[str] = []
    for name in figures:
        missing = [label for label, means in classes.items() if not math.isfinite(means[name])]
        if missing and len(missing) < len(classes):
            notes.append(
                f"average: {len(missing)} of {len(classes)} classes left out of {name} "
                f"({', '.join(missing)})"
            )
    return notes


def figures_of(scores: Sequence[ImageScore]) -> tuple[Figure, ...]:
    """The figures that the scores have."""
    return tuple(name for name in FIGURES if scores and name in scores[0].values)


def by_label(
    scores: Iterable[ImageScore], order: Sequence[str] = ()
) -> dict[str, list[ImageScore]]:
    """The scores of each label; labels by ``order``, then as they appear."""
    groups: dict[str, list[ImageScore]] = {label: [] for label in order}
    for score in scores:
        groups.setdefault(score.label, []).append(score)
    return {label: members for label, members in groups.items() if members}


def _mean(values: Iterable[float]) -> float:
    """Mean of the finite values; inf where all are infinite, nan where there are none."""
    every = list(values)
    finite = [value for value in every if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return math.inf if math.inf in every else math.nan


def _omissions(label: str, members: Sequence[ImageScore], figures: Sequence[Figure]) -> list[str]:
    """What was left out of a class's means, with each metric's own reasons."""
    notes: list[str] = []
    for name in figures:
        metric = metric_of(name)
        reasons = Counter(
            metric.why(value, min(s.height, s.width))
            for s in members
            if not math.isfinite(value := s.values[name])
        )
        notes += [
            f"{label}: {count} of {len(members)} images left out of the mean of {name} ({why})"
            for why, count in reasons.items()
        ]
    return notes


def _thin(groups: Mapping[str, Sequence[ImageScore]]) -> list[str]:
    """A class is resampled from its own scenes: many in another make it no surer."""
    scenes = {label: len({s.scene for s in members}) for label, members in groups.items()}
    few = {label: count for label, count in scenes.items() if count < FEW_SCENES}
    if not few:
        return []
    if len(set(scenes.values())) == 1:
        resting = counted(next(iter(few.values())), "scene")
    else:
        *others, last = few.items()
        named = [f"{count} ({label})" for label, count in others]
        resting = ", ".join([*named, f"{counted(last[1], 'scene')} ({last[0]})"])
    return [f"intervals rest on {resting} only: take them as too narrow"]


def bootstrap(
    scores: Sequence[ImageScore],
) -> tuple[dict[str, dict[Figure, Interval]], dict[Figure, Interval]]:
    """Confidence intervals of the class means and of their mean, by the percentile bootstrap.

    Scenes are drawn with replacement. Classes that show the same scenes, as all of CDD11's and
    the noise levels of the three tasks do, share one draw, because their errors are not
    independent.

    Returns:
        Intervals per label and figure, and of the average.
    """
    figures = figures_of(scores)
    classes: dict[str, dict[Figure, Interval]] = {}
    means: dict[Figure, list[NDArray[np.float64]]] = {name: [] for name in figures}
    drawn: dict[tuple[str, ...], NDArray[np.int64]] = {}
    for label, members in by_label(scores).items():
        scenes = tuple(sorted({s.scene for s in members}))
        if scenes not in drawn:
            drawn[scenes] = _draws(label, len(scenes))
        place = {name: index for index, name in enumerate(scenes)}
        weights = drawn[scenes][:, [place[s.scene] for s in members]]
        classes[label] = {}
        for name in figures:
            values = np.array([s.values[name] for s in members])
            resampled = _weighted_means(weights, values)
            if np.isfinite(values).any():  # as in `summarise`: such a class is left out
                means[name].append(resampled)
            classes[label][name] = _interval(resampled)
    average: dict[Figure, Interval] = {
        name: _interval(np.mean(parts, axis=0)) if parts else Interval(math.nan, math.nan)
        for name, parts in means.items()
    }
    return classes, average


def bootstrap_gain(scores: Sequence[ImageScore]) -> tuple[dict[str, Interval], Interval]:
    """Intervals of the gains, paired by image: per label, and of their mean."""
    gains = [replace(score, values={"psnr": score.gain}) for score in scores]
    classes, average = bootstrap(gains)
    return {label: found["psnr"] for label, found in classes.items()}, average["psnr"]


def _draws(name: str, count: int) -> NDArray[np.int64]:
    """(RESAMPLES, count) how often each scene is drawn; the same on every machine."""
    random = generator("bootstrap", name, count)
    return random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)


def _weighted_means(weights: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    used = weights[:, finite]
    total = used.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return used @ values[finite] / total


def _interval(values: NDArray[np.float64]) -> Interval:
    values = values[np.isfinite(values)]
    if not values.size:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
