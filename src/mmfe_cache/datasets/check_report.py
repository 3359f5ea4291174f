"""What `check_dataset` found: one value a part, and the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .leaks import Leak
from .splits import Split


@dataclass(frozen=True, slots=True)
class PartCheck:
    """What was found of one part.

    Attributes:
        name: the part.
        split: of the data set.
        layout: the arrangement that was recognised; None when none was.
        folder: where it lies.
        found: pairs (for denoising: photographs).
        published: how many a complete one has.
        samples: samples that it gives, noise levels and windows counted.
        labels: the classes of these samples.
        missing: names that should be there: partners that are missing.
        extra: files that belong to nothing: no images, or without a partner.
        unreadable: files that cannot be decoded, with the reason.
        mismatched: pairs whose pictures differ in size.
        sizes: "WIDTHxHEIGHT" of the clean pictures and how many have it.
        notes: what else a user should know.
    """

    name: str
    split: Split
    layout: str | None = None
    folder: Path | None = None
    found: int = 0
    published: int | None = None
    samples: int = 0
    labels: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every pair that is there can be used and none is known to be missing."""
        return self.layout is not None and not (
            self.missing or self.unreadable or self.mismatched or self.incomplete
        )

    @property
    def incomplete(self) -> bool:
        """Whether fewer files are there than published."""
        return self.published is not None and self.found < self.published


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        dataset: its name.
        root: where it was looked for.
        parts: every part of every split.
        leaks: test photographs that are in the training split too.
        compared: (training, test) photographs that were compared for leaks.
        distinct: how many of them differ from all others of their split.
    """

    dataset: str
    root: Path
    parts: tuple[PartCheck, ...]
    leaks: tuple[Leak, ...]
    compared: tuple[int, int]
    distinct: tuple[int, int]

    @property
    def ok(self) -> bool:
        """Whether everything is there, readable and free of leaks."""
        return all(part.ok for part in self.parts) and not self.leaks

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "ok": self.ok,
            "parts": [
                {
                    "name": part.name,
                    "split": part.split,
                    "ok": part.ok,
                    "layout": part.layout,
                    "folder": None if part.folder is None else str(part.folder),
                    "found": part.found,
                    "published": part.published,
                    "samples": part.samples,
                    "labels": list(part.labels),
                    "missing": list(part.missing),
                    "extra": list(part.extra),
                    "unreadable": list(part.unreadable),
                    "mismatched": list(part.mismatched),
                    "sizes": dict(part.sizes),
                    "notes": list(part.notes),
                }
                for part in self.parts
            ],
            "leaks": [
                {
                    "test": leak.test,
                    "train": leak.train,
                    "distance": leak.distance,
                    "correlation": leak.correlation,
                }
                for leak in self.leaks
            ],
            "compared": {"train": self.compared[0], "test": self.compared[1]},
            "distinct": {"train": self.distinct[0], "test": self.distinct[1]},
        }
