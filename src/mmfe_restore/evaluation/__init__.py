"""Evaluation: restored images against ground truth, by the protocols that peers publish."""

from __future__ import annotations

from mmfe_restore.evaluation.checkpoint import Checkpoint, load_checkpoint, open_eval_cache
from mmfe_restore.evaluation.evaluate import evaluate
from mmfe_restore.evaluation.protocols import PROTOCOLS, Protocol
from mmfe_restore.evaluation.report import EvalReport
from mmfe_restore.evaluation.scores import FIGURES, ImageScore

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
