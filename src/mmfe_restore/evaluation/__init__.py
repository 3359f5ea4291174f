"""Evaluation: restored images against ground truth, by the protocols that peers publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.evaluation.evaluate import evaluate as evaluate
    from mmfe_restore.evaluation.inputs import (
        Checkpoint as Checkpoint,
        load_checkpoint as load_checkpoint,
        open_eval_cache as open_eval_cache,
    )
    from mmfe_restore.evaluation.published import PROTOCOLS as PROTOCOLS, Protocol as Protocol
    from mmfe_restore.evaluation.report import EvalReport as EvalReport
    from mmfe_restore.evaluation.statistics import ImageScore as ImageScore
    from mmfe_restore.metrics.registry import FIGURES as FIGURES


# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "evaluate": ["evaluate"],
        "inputs": ["Checkpoint", "load_checkpoint", "open_eval_cache"],
        "published": ["PROTOCOLS", "Protocol"],
        "report": ["EvalReport"],
        "statistics": ["FIGURES", "ImageScore"],
    },
)
