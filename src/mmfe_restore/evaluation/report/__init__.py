"""What an evaluation leaves behind: the report, its files, its page."""

from __future__ import annotations

from mmfe_restore.evaluation.report.eval_report import EvalReport as EvalReport
from mmfe_restore.evaluation.report.files import (
    METRICS_FILE as METRICS_FILE,
    PER_IMAGE as PER_IMAGE,
    add_photograph as add_photograph,
    check_free as check_free,
    write_report as write_report,
)
