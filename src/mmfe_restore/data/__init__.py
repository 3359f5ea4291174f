"""Training data: crops and embeddings of every step, as a pure function of recipe and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.data.cache import (
        JOINT as JOINT,
        PROMPT as PROMPT,
        SampleGuidance as SampleGuidance,
        build_command as build_command,
        check_cache as check_cache,
        find_store as find_store,
        guide_name as guide_name,
        is_store as is_store,
    )
    from mmfe_restore.data.dataloader import Batch as Batch, TrainingBatches as TrainingBatches
    from mmfe_restore.data.dataset import (
        TrainingPair as TrainingPair,
        TrainingPairs as TrainingPairs,
        collate_pairs as collate_pairs,
        hold_in_memory as hold_in_memory,
    )
    from mmfe_restore.data.sampler import Draw as Draw, Schedule as Schedule, StagePlan as StagePlan


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
