"""The files that keep an evaluation: a folder that is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from mmfe_cache.errors import UsageError
from mmfe_cache.io import draft_folder, write_file, write_json
from mmfe_restore.evaluation.report.eval_report import EvalReport
from mmfe_restore.evaluation.report.page import PageExtras, render_page

METRICS = "metrics.json"
PER_IMAGE = "per_image.csv"
PAGE = "report.html"


def write_report(
    report: EvalReport, out: Path, *, extras: PageExtras | None = None, force: bool = False
) -> None:
    """Write metrics.json, per_image.csv and report.html; the folder appears whole.

    Raises:
        UsageError: ``out`` exists and ``force`` is not set.
    """
    check_free(out, force=force)
    with draft_folder(out) as draft:
        write_json(draft / METRICS, report.to_json())
        write_file(draft / PER_IMAGE, report.csv())
        write_file(draft / PAGE, render_page(report, extras))


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
