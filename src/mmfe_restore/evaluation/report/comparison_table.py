"""Our figures beside the published ones: as data, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmfe_restore.evaluation.published import PublishedTable, Score, comparison_for
from mmfe_restore.evaluation.report.eval_report import EvalReport
from mmfe_restore.evaluation.statistics import Means


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
    return (
        f"{found.title}: {found.source}. PSNR in dB and SSIM; our SSIM is {side}, the published "
        f"rows mix both windows. Ours: protocol {report.protocol.name}, {report.crop}, range 0 to "
        f"1, rounding {report.rounding}, {guide}. A row of ours compares only if its test set is "
        "the published one."
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
