"""The files that keep an evaluation: a folder that is there whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmfe_cache.errors import UsageError
from mmfe_cache.images import read_rgb8
from mmfe_cache.io import draft_folder, write_file, write_json
from mmfe_restore.evaluation.report.eval_report import EvalReport
from mmfe_restore.evaluation.report.page import OtherRun, render_page, with_photograph
from mmfe_restore.evaluation.report.pictures import BUDGET, encode

METRICS = "metrics.json"
PER_IMAGE = "per_image.csv"
PAGE = "report.html"


def write_report(
    report: EvalReport, out: Path, *, others: Sequence[OtherRun] = (), force: bool = False
) -> None:
    """Write metrics.json, per_image.csv and report.html; the folder appears whole.

    Raises:
        UsageError: ``out`` exists and ``force`` is not set.
    """
    check_free(out, force=force)
    with draft_folder(out) as draft:
        write_json(draft / METRICS, report.to_json())
        write_file(draft / PER_IMAGE, report.csv())
        write_file(draft / PAGE, render_page(report, others))


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to write over what is there.

    A folder that holds anything but a report is left alone even with ``force``.

    Raises:
        UsageError: ``out`` holds something.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    ours = {METRICS, PER_IMAGE, PAGE}
    is_report = out.is_dir() and (out / METRICS).is_file()
    if is_report and force:
        foreign = sorted(path.name for path in out.iterdir() if path.name not in ours)
        if not foreign:
            return
        raise UsageError(
            f"{out} holds more than a report",
            got=", ".join(foreign[:5]),
            remedy="choose another folder with --out",
        )
    raise UsageError(
        f"{out} exists",
        got="a report" if is_report else "something that is no report",
        expected="a new folder",
        remedy="write over it with --force, or choose another folder with --out"
        if is_report
        else "choose another folder with --out",
    )


def add_photograph(out: Path, degraded: Path, restored: Path, clean: Path) -> None:
    """Show one more picture, of no set, on the page of a report that is written already.

    Raises:
        UsageError: the three differ in size.
    """
    images = [read_rgb8(path) for path in (degraded, restored, clean)]
    if len({image.shape for image in images}) > 1:
        raise UsageError(
            "the three pictures of the photograph differ in size",
            got=", ".join(f"{image.shape[1]}×{image.shape[0]}" for image in images),
            expected="degraded, restored and clean of one size",
        )
    shown = encode(degraded.stem, images[0], images[1], images[2], BUDGET // 12)
    page = (out / PAGE).read_text(encoding="utf-8")
    write_file(out / PAGE, with_photograph(page, shown))
