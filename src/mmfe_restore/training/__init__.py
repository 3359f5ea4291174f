"""Training: the paper's schedule, resumable at any step, on one process or many."""

from __future__ import annotations

from mmfe_restore.training.dry_run import Plan, plan_run
from mmfe_restore.training.train import TrainReport, train

__all__ = ["Plan", "TrainReport", "plan_run", "train"]
