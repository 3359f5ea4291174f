"""Two evaluations of the same test set, compared image by image."""

from __future__ import annotations

import csv
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmfe_cache.errors import DataError, MmfeError, UsageError
from mmfe_cache.parsing import parse_json
from mmfe_restore.evaluation.report import METRICS_FILE, PER_IMAGE
from mmfe_restore.evaluation.statistics import (
    FIGURES,
    LEVEL,
    Figure,
    ImageScore,
    Interval,
    bootstrap,
    by_label,
    summarise,
)
from mmfe_restore.metrics.registry import metric_of
from mmfe_restore.model.folders import recipe_of
from mmfe_restore.recipes import Recipe, changed_settings

SAME = ("dataset", "split", "protocol", "crop", "rounding")
"""What must agree for two evaluations to be comparable."""

_SAME_INPUT = 1e-4
"""dB: two machines' readings of one degraded image differ by less, those of two images by more."""


@dataclass(frozen=True)
class SavedReport:
    """An evaluation read back from its folder.

    Attributes:
        path: the report's folder.
        about: metrics.json.
        scores: per_image.csv.
    """

    path: Path
    about: Mapping[str, Any]
    scores: tuple[ImageScore, ...]


@dataclass(frozen=True)
class Difference:
    """How B differs from A in one figure, over one class or all; positive means B is higher.

    Attributes:
        label: the class, or ``"average"``.
        images: compared: those that have a finite value in both.
        left_out: that lack one.
        a: mean of A.
        b: mean of B.
        mean: mean of the per-image differences; of class means for the average.
        low: lower end of its bootstrap interval.
        high: upper end.
        wins: images on which B is better.
        losses: images on which A is better.
    """

    label: str
    images: int
    a: float
    b: float
    mean: float
    low: float
    high: float
    wins: int
    losses: int
    left_out: int = 0

    @property
    def omission(self) -> str:
        """Such as ``"9 of 10"``; empty where nothing is left out."""
        return f"{self.left_out} of {self.images + self.left_out}" if self.left_out else ""


@dataclass(frozen=True)
class Comparison:
    """B against A, image by image.

    Attributes:
        a: A's report folder.
        b: B's.
        figure: what is compared.
        classes: per class.
        average: over all classes.
        best: the images on which B gains most, with the difference.
        worst: those on which it loses most.
        notes: images left out, intervals that rest on few scenes.
    """

    a: Path
    b: Path
    figure: Figure
    classes: tuple[Difference, ...]
    average: Difference
    best: tuple[tuple[str, float], ...]
    worst: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "a": str(self.a),
            "b": str(self.b),
            "figure": self.figure,
            "level": LEVEL,
            "average": asdict(self.average),
            "classes": {d.label: asdict(d) for d in self.classes},
            "best": [{"id": name, "difference": value} for name, value in self.best],
            "worst": [{"id": name, "difference": value} for name, value in self.worst],
            "notes": list(self.notes),
        }


def read_report(path: Path) -> SavedReport:
    """Read an evaluation: its folder, its metrics.json, or a run that has exactly one.

    Raises:
        UsageError: there is none, or a run has several.
        DataError: its files are damaged.
    """
    folder = _report_folder(path)
    try:
        about = _about(folder / METRICS_FILE)
        with (folder / PER_IMAGE).open(encoding="utf-8", newline="") as stream:
            scores = tuple(_score(row) for row in csv.DictReader(stream))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(
            f"the report {folder} cannot be read",
            got=f"{type(problem).__name__}: {problem}",
            expected=f"{METRICS_FILE} and {PER_IMAGE} as mmfe eval writes them",
            # Without its run the command would put the newest one's figures there.
            remedy=f"mmfe eval --checkpoint RUN --out {shlex.quote(str(folder))} --force, with the "
            "run that it judges and the options that it was made with",
        ) from None
    if not scores:
        raise DataError(f"the report {folder} holds no image")
    return SavedReport(folder, about, scores)


def run_name(report: SavedReport) -> str:
    """The run that a report judges, by its folder's name."""
    checkpoint = report.about.get("checkpoint")
    if checkpoint is None:
        return report.path.name
    model = Path(checkpoint)
    return model.parent.name if model.name == "model" else model.name


def differing_settings(other: SavedReport, mine: SavedReport) -> str:
    """In which settings of its recipe another training differs, with that training's values."""
    theirs, ours = _recipe(other), _recipe(mine)
    if theirs is None or ours is None:
        return "unknown: a checkpoint does not name its recipe"
    return ", ".join(f"{key} {value}" for key, value in changed_settings(theirs, ours).items())


def _recipe(report: SavedReport) -> Recipe | None:
    """The recipe behind a report; None where it is unknown."""
    checkpoint = report.about.get("checkpoint")
    if checkpoint is None:
        return None
    try:
        return recipe_of(Path(checkpoint))
    except MmfeError:
        return None


def compare(a: SavedReport, b: SavedReport, figure: Figure = "psnr", most: int = 5) -> Comparison:
    """Compare two evaluations of the same images under the same protocol.

    Raises:
        UsageError: they were measured differently, or are of other images.
    """
    check_comparable(a, b)
    theirs = {score.id: score for score in b.scores}
    pairs = [(score, theirs[score.id]) for score in a.scores]
    used = [
        (x, y)
        for x, y in pairs
        if math.isfinite(x.values[figure]) and math.isfinite(y.values[figure])
    ]
    left_out = Counter(x.label for x, _ in pairs) - Counter(x.label for x, _ in used)
    notes = [
        f"{label}: {count} of {sum(x.label == label for x, _ in pairs)} images left out: no finite "
        f"{figure} in {_lacking(label, pairs, figure)}"
        for label, count in left_out.items()
    ]
    # Earlier reports name none: whole images.
    windows = [report.about.get("attention_window") for report in (a, b)]
    if windows[0] != windows[1]:
        said = ["whole images" if one is None else f"windows of {one} pixels" for one in windows]
        notes.append(f"A's attention sums over {said[0]}, B's over {said[1]}")
    # Earlier reports do not say whose embeddings were read.
    whose = all("embeddings" in report.about for report in (a, b))
    guides = [_judged_with(report.about, whose) for report in (a, b)]
    if guides[0] != guides[1]:
        notes.append(f"A was judged with {guides[0]}, B with {guides[1]}")
    notes += _read_otherwise(a.about, b.about)
    if not used:
        raise DataError(f"no image has a finite {figure} in both reports")
    differences = [_difference(x, y, figure) for x, y in used]
    # With those that are left out: classes that show the same scenes then still share one draw.
    classes, overall = bootstrap([_difference(x, y, figure) for x, y in pairs])
    groups = by_label(differences, list(a.about["classes"]))
    rows = tuple(
        _row(label, groups[label], used, figure, classes[label][figure], left_out[label])
        for label in groups
    )
    summary = summarise(differences)
    notes += summary.notes
    average = Difference(
        "average",
        len(used),
        _mean([row.a for row in rows]),
        _mean([row.b for row in rows]),
        summary.average[figure],
        overall[figure].low,
        overall[figure].high,
        sum(row.wins for row in rows),
        sum(row.losses for row in rows),
        left_out.total(),
    )
    better = 1 if metric_of(figure).higher_is_better else -1
    ranked = sorted(
        ((d.id, d.values[figure]) for d in differences), key=lambda item: better * item[1]
    )
    return Comparison(
        a.path,
        b.path,
        figure,
        rows,
        average,
        tuple(ranked[::-1][:most]),
        tuple(ranked[:most]),
        tuple(notes),
    )


def _judged_with(about: Mapping[str, Any], whose: bool) -> str:
    """The guide and view of a report, or that it had none: such as with ``--no-guide``.

    With ``whose`` it is the guide whose embeddings were read, and what that was asked.
    """
    guide = about.get("guide")
    if guide is None:
        return "no guide"
    asked = about.get("prompt") if whose else None
    question = "" if asked is None else f", asked {asked!r}"
    return f"the guide {about['embeddings'] if whose else guide} at {about.get('view')}{question}"


def _read_otherwise(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """In what two guided evaluations read their guides' embeddings otherwise."""
    if None in (a.get("guide"), b.get("guide")):
        return []
    return [
        f"A was judged with guide.{key}={a[key]}, B with guide.{key}={b[key]}"
        for key in ("tokens", "control")
        if None not in (a.get(key), b.get(key)) and a[key] != b[key]
    ]


def _row(
    label: str,
    members: Sequence[ImageScore],
    used: Sequence[tuple[ImageScore, ImageScore]],
    figure: Figure,
    interval: Interval,
    left_out: int,
) -> Difference:
    values = [d.values[figure] for d in members]
    mine = [(x, y) for x, y in used if x.label == label]
    better = 1 if metric_of(figure).higher_is_better else -1
    return Difference(
        label,
        len(values),
        _mean([x.values[figure] for x, _ in mine]),
        _mean([y.values[figure] for _, y in mine]),
        _mean(values),
        interval.low,
        interval.high,
        sum(better * value > 0 for value in values),
        sum(better * value < 0 for value in values),
        left_out,
    )


def _lacking(label: str, pairs: Sequence[tuple[ImageScore, ImageScore]], figure: Figure) -> str:
    """On which side the images of a class lack a value, such as ``"A 2, B 1"``."""
    sides = [
        sum(
            not math.isfinite(pair[side].values[figure]) for pair in pairs if pair[0].label == label
        )
        for side in (0, 1)
    ]
    return ", ".join(f"{name} {count}" for name, count in zip("AB", sides, strict=True) if count)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _difference(x: ImageScore, y: ImageScore, figure: Figure) -> ImageScore:
    return replace(x, values={figure: y.values[figure] - x.values[figure]})


def check_comparable(a: SavedReport, b: SavedReport) -> None:
    """Refuse two evaluations that were measured differently, or are of other images.

    Raises:
        UsageError: names what differs.
    """
    for name in SAME:
        if a.about.get(name) != b.about.get(name):
            raise UsageError(
                f"the two evaluations differ in their {name}",
                got=f"{a.about.get(name)} ({a.path}) and {b.about.get(name)} ({b.path})",
                expected="the same for both",
                remedy="mmfe eval both with the same --dataset, --split and --protocol",
            )
    ours, theirs = {s.id for s in a.scores}, {s.id for s in b.scores}
    if ours != theirs:
        odd = sorted(ours ^ theirs)
        raise UsageError(
            "the two evaluations are of different images",
            got=f"{len(odd)} images that only one has, such as {odd[0]!r}",
            expected="the same images in both",
        )
    judged = {s.id: s for s in b.scores}
    odd = [(s, judged[s.id]) for s in a.scores if not _same_input(s, judged[s.id])]
    if odd:
        x, y = (score.values["input_psnr"] for score in odd[0])
        raise UsageError(
            "the two evaluations are of different images that bear the same names",
            got=f"{len(odd)} of {len(a.scores)} inputs, such as {odd[0][0].id!r} of {x:.4f} dB "
            f"({a.path}) and {y:.4f} dB ({b.path})",
            expected="the same inputs, before any restoration, in both",
            remedy="mmfe eval both with the same --root",
        )


def _same_input(x: ImageScore, y: ImageScore) -> bool:
    """Whether two scores of one id are of one picture, as far as the input's PSNR tells."""
    before = [score.values.get("input_psnr", math.nan) for score in (x, y)]
    if any(map(math.isnan, before)):
        return True  # not measured
    return before[0] == before[1] or abs(before[0] - before[1]) <= _SAME_INPUT


def _report_folder(path: Path) -> Path:
    if path.name == METRICS_FILE:
        path = path.parent
    if (path / METRICS_FILE).is_file() and (path / PER_IMAGE).is_file():
        return path
    run = path.parent if path.name == "model" else path
    found = sorted(p.parent for p in (run / "eval").glob(f"*/{METRICS_FILE}"))
    if not found and (run / "model").is_dir():
        found = _reports_of(run)
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"there {'are several evaluations' if found else 'is no evaluation'} in {path}",
        got=", ".join(map(str, found)) or None,
        expected=f"a folder with {METRICS_FILE} and {PER_IMAGE}",
        remedy="name one of them" if found else f"mmfe eval --checkpoint {path}",
    )


def _reports_of(run: Path) -> list[Path]:
    """Reports beside the folder of runs that judge this one: `mmfe demo` keeps its there."""
    found: list[Path] = []
    for file in sorted(run.parent.parent.glob(f"*/{METRICS_FILE}")):
        try:
            checkpoint = _about(file).get("checkpoint")
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a report of ours: naming it will say so
        if checkpoint is None:
            continue
        # As it was given to `mmfe eval`: from wherever that ran, or moved along with the run.
        model = Path(checkpoint)
        same = model.exists() and model.samefile(run / "model")
        if same or model.parts[-3:] == (*run.absolute().parts[-2:], "model"):
            found.append(file.parent)
    return found


def _about(file: Path) -> dict[str, Any]:
    about = parse_json(file.read_bytes(), file)
    if not isinstance(about["classes"], dict):
        raise TypeError("the classes are not a table")
    return about


def _score(row: Mapping[str, str]) -> ImageScore:
    values: dict[Figure, float] = {name: float(row[name]) for name in FIGURES if name in row}
    return ImageScore(
        row["id"], row["label"], row["scene"], int(row["height"]), int(row["width"]), values
    )
