"""Training: the paper's schedule, resumable at any step, on one process or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.training.dry_run import Plan as Plan, plan_run as plan_run
    from mmfe_restore.training.report import TrainReport as TrainReport
    from mmfe_restore.training.train import train as train


# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "dry_run": ["Plan", "plan_run"],
        "report": ["TrainReport"],
        "train": ["train"],
    },
)
