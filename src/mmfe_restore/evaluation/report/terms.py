"""The words of a report for a reader who meets them for the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmfe_restore.evaluation.statistics import LEVEL
from mmfe_restore.metrics.registry import MetricInfo

DEGRADATIONS: dict[str, tuple[str, str]] = {
    "low": ("low light", "Taken in too little light: dark, and grainy once it is brightened."),
    "haze": ("haze", "Seen through mist: pale and without contrast, more so far away."),
    "rain": ("rain", "Streaks of falling rain lie over the picture."),
    "snow": ("snow", "Flakes of falling snow lie over the picture."),
    "blur": ("motion blur", "The camera or the scene moved while the picture was taken."),
    "noise": ("noise", "Random grain of a standard deviation σ, in levels of 0 to 255."),
}
"""What a class is named after: in words, and explained."""


def class_words(label: str) -> str:
    """A class in words: ``low_haze`` is "low light + haze"; a label of one's own is kept."""
    parts = label.split("_")
    if not all(part.partition("-")[0] in DEGRADATIONS for part in parts):
        return label
    return " + ".join(map(_part_words, parts))


def _part_words(part: str) -> str:
    kind, _, level = part.partition("-")
    words = DEGRADATIONS[kind][0]
    return f"{words} σ {level}" if kind == "noise" and level else words


def terms(metrics: Sequence[MetricInfo], labels: Iterable[str]) -> list[tuple[str, str]]:
    """Names and explanations of everything that a report of these metrics and classes names."""
    present = dict.fromkeys(part.partition("-")[0] for label in labels for part in label.split("_"))
    return [
        *((metric.label, metric.explanation) for metric in metrics),
        (
            "gain",
            "PSNR of the restored image less that of its degraded input: what restoration added. "
            "An input that is identical to the original has no PSNR to start from and is left "
            "out.",
        ),
        (
            f"{LEVEL:.0%} interval",
            "Where the mean would probably lie for other photographs of the same kind.",
        ),
        *(DEGRADATIONS[kind] for kind in present if kind in DEGRADATIONS),
    ]
