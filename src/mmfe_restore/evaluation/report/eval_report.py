"""The outcome of an evaluation, and its figures beside those published: data, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mmfe_restore.evaluation.published import Protocol, PublishedTable, Score, comparison_for
from mmfe_restore.evaluation.report.pictures import Pictures
from mmfe_restore.evaluation.statistics import (
    LEVEL,
    RESAMPLES,
    ImageScore,
    Interval,
    Means,
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
        checkpoint: the weights' folder, or a shipped network's name; None where there is none.
        protocol: how it was measured.
        crop_multiple: images were centre-cropped to a multiple of this; 1 means whole images.
        window: that the network's attention sums over, in pixels; None for whole images.
        view: the guide's view; None for an unguided run.
        guide: the guide's name in the recipe; None for an unguided run.
        embeddings: whose embeddings were read, which may be a student's in the guide's place;
            None for an unguided run.
        prompt: what that guide was asked; None where it is asked nothing.
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
    window: int | None
    view: str | None
    guide: str | None
    embeddings: str | None
    prompt: str | None
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
    def attention(self) -> str:
        """What attention sums over, for people."""
        return "whole images" if self.window is None else f"windows of {self.window} pixels"

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
            "attention_window": self.window,
            "range": 1.0,
            "rounding": self.rounding,
            "view": self.view,
            "guide": self.guide,
            "embeddings": self.embeddings,
            "prompt": self.prompt,
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
                "average": _ends({**average, "gain": gain}),
                "classes": {
                    name: _ends({**found, "gain": gains[name]}) for name, found in classes.items()
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


def _ends(intervals: Mapping[Any, Interval]) -> dict[str, list[float | None]]:
    return {str(name): found.to_json() for name, found in intervals.items()}


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the comparison: a method, its classes and its average."""

    method: str
    cells: tuple[Score | None, ...]
    ours: bool


@dataclass(frozen=True)
class ComparisonTable:
    """A published table with our row at its end.

    Attributes:
        title: what it shows.
        source: where the published rows are printed.
        columns: classes, without the average.
        rows: published ones in printed order, then ours.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]


def comparison_table(report: EvalReport) -> ComparisonTable | None:
    """Set a report's figures beside the published table of its dataset, if there is one."""
    table = comparison_for(report.dataset)
    if table is None:
        return None
    ours = _our_row(report, table)
    rows = [
        ComparisonRow(row.method, (*(row.values.get(c) for c in table.columns), row.average), False)
        for row in table.rows
    ]
    return ComparisonTable(table.title, table.source, table.columns, (*rows, ours))


def _our_row(report: EvalReport, table: PublishedTable) -> ComparisonRow:
    window = report.protocol.ssim_window
    summary = report.summary
    cells = [
        _score(summary.classes[c], window) if c in summary.classes else None for c in table.columns
    ]
    complete = set(table.columns) == set(summary.classes)
    # A class without a mean is missing from the average: that is none of all classes.
    average = _score(summary.average, window) if complete and all(cells) else None
    name = f"ours: {report.recipe}"
    if not report.published_test_set:
        name += f" on {report.test_set}"
    return ComparisonRow(name, (*cells, average), True)


def _score(means: Means, window: str) -> Score | None:
    psnr, ssim = means["psnr"], means["ssim_uniform" if window == "uniform" else "ssim_gaussian"]
    return Score(psnr, ssim) if math.isfinite(psnr) and math.isfinite(ssim) else None


def comparison_json(report: EvalReport) -> dict[str, Any] | None:
    """The comparison as plain values for the page and for JSON."""
    found = comparison_table(report)
    if found is None:
        return None
    return {
        "source": caption(report, found),
        "columns": list(found.columns),
        "rows": [
            {
                "method": row.method,
                "ours": row.ours,
                "cells": [None if c is None else [c.psnr, c.ssim] for c in row.cells],
            }
            for row in found.rows
        ],
    }


def caption(report: EvalReport, found: ComparisonTable) -> str:
    """What a reader must know before comparing the rows."""
    side = "7×7 uniform" if report.protocol.ssim_window == "uniform" else "11×11 Gaussian"
    guide = f"guide {report.guide} at {report.view}" if report.guide else "no guide"
    windows = "" if report.window is None else f", attention over {report.attention}"
    return (
        f"{found.title}: {found.source}. PSNR in dB and SSIM; our SSIM is {side}, the published "
        f"rows mix both windows. Ours: protocol {report.protocol.name}, {report.crop}{windows}, "
        f"range 0 to 1, rounding {report.rounding}, {guide}. A row of ours compares only if its "
        "test set is the published one."
    )


def to_markdown(report: EvalReport, found: ComparisonTable) -> str:
    """A GitHub-flavoured table."""
    head = ["method", *(c.replace("_", "+") for c in found.columns), "average"]
    lines = [_md(head), _md(["---", *["---:"] * (len(head) - 1)])]
    for row in found.rows:
        cells = ["–" if c is None else f"{c.psnr:.2f} / {c.ssim:.3f}" for c in row.cells]
        method = _md_text(row.method)
        lines.append(_md([f"**{method}**" if row.ours else method, *cells]))
    return "\n".join([*lines, "", _md_text(caption(report, found)), ""])


def _md(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _md_text(text: str) -> str:
    for character in "\\`*_{}[]<>|":
        text = text.replace(character, "\\" + character)
    return text


def to_latex(report: EvalReport, found: ComparisonTable) -> str:
    """A booktabs table, ready to be put into a paper."""
    columns = len(found.columns) + 1
    head = " & ".join(["Method", *(c.replace("_", "+") for c in found.columns), "Average"])
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(caption(report, found))}}}",
        rf"\begin{{tabular}}{{l{'c' * columns}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for row in found.rows:
        if row.ours:
            lines.append(r"\midrule")
        cells = ["--" if c is None else f"{c.psnr:.2f} {c.ssim:.3f}" for c in row.cells]
        lines.append(" & ".join([_tex(row.method), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "×": r"$\times$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
