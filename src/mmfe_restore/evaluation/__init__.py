"""Evaluation: restored images against ground truth, by the protocols that peers publish."""

from __future__ import annotations

from mmfe_restore.evaluation.evaluate import evaluate
from mmfe_restore.evaluation.inputs import Checkpoint, load_checkpoint, open_eval_cache
from mmfe_restore.evaluation.published import PROTOCOLS, Protocol
from mmfe_restore.evaluation.report import EvalReport
from mmfe_restore.evaluation.statistics import FIGURES, ImageScore

__all__ = [
    "FIGURES",
    "PROTOCOLS",
    "Checkpoint",
    "EvalReport",
    "ImageScore",
    "Protocol",
    "evaluate",
    "load_checkpoint",
    "open_eval_cache",
]
