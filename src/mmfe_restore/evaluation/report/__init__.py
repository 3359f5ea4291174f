"""What an evaluation leaves behind: the report, its files, its page."""

from __future__ import annotations

from mmfe_restore.evaluation.report.eval_report import EvalReport
from mmfe_restore.evaluation.report.files import (
    METRICS_FILE,
    PER_IMAGE,
    add_photograph,
    check_free,
    write_report,
)

__all__ = [
    "METRICS_FILE",
    "PER_IMAGE",
    "EvalReport",
    "add_photograph",
    "check_free",
    "write_report",
]
