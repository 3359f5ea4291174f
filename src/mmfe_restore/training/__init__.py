"""Training: the paper's schedule, resumable at any step, on one process or many."""

from __future__ import annotations

from mmfe_restore.training.plan import Plan, plan_run
from mmfe_restore.training.report import TrainReport
from mmfe_restore.training.run import train

__all__ = ["Plan", "TrainReport", "plan_run", "train"]
