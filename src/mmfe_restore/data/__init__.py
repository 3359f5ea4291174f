"""Training data: crops and embeddings of every step, as a pure function of recipe and samples."""

from __future__ import annotations

from mmfe_restore.data.batches import Batch, TrainingBatches
from mmfe_restore.data.caches import build_command, find_store, guide_fingerprint, guide_name
from mmfe_restore.data.guidance import SampleGuidance
from mmfe_restore.data.memory import hold_in_memory
from mmfe_restore.data.pairs import Pair, TrainingPairs, collate_pairs
from mmfe_restore.data.schedule import Draw, Schedule, StagePlan

__all__ = [
    "Batch",
    "Draw",
    "Pair",
    "SampleGuidance",
    "Schedule",
    "StagePlan",
    "TrainingBatches",
    "TrainingPairs",
    "build_command",
    "collate_pairs",
    "find_store",
    "guide_fingerprint",
    "guide_name",
    "hold_in_memory",
]
