"""Training data: crops and embeddings of every step, as a pure function of recipe and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.data.cache import (
        JOINT,
        PROMPT,
        SampleGuidance,
        build_command,
        check_cache,
        find_store,
        guide_name,
        is_store,
    )
    from mmfe_restore.data.dataloader import Batch, TrainingBatches
    from mmfe_restore.data.dataset import TrainingPair, TrainingPairs, collate_pairs, hold_in_memory
    from mmfe_restore.data.sampler import Draw, Schedule, StagePlan

__all__ = [
    "JOINT",
    "PROMPT",
    "Batch",
    "Draw",
    "SampleGuidance",
    "Schedule",
    "StagePlan",
    "TrainingBatches",
    "TrainingPair",
    "TrainingPairs",
    "build_command",
    "check_cache",
    "collate_pairs",
    "find_store",
    "guide_name",
    "hold_in_memory",
    "is_store",
]

# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "cache": [
            "JOINT",
            "PROMPT",
            "SampleGuidance",
            "build_command",
            "check_cache",
            "find_store",
            "guide_name",
            "is_store",
        ],
        "dataloader": ["Batch", "TrainingBatches"],
        "dataset": ["TrainingPair", "TrainingPairs", "collate_pairs", "hold_in_memory"],
        "sampler": ["Draw", "Schedule", "StagePlan"],
    },
)
