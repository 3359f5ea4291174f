"""Data sets: every benchmark of the paper, in every layout people have; samples, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from .check import CheckReport, PartCheck, check_dataset
    from .registry import (
        DATASETS,
        SPLITS,
        data_root,
        dataset_info,
        find_packs,
        load_dataset,
        splits_of,
    )
    from .sources import DerivedSource, NoisySource, SyntheticSource, WindowSource, add_noise
    from .synth import write_synth

__all__ = [
    "DATASETS",
    "SPLITS",
    "CheckReport",
    "DerivedSource",
    "NoisySource",
    "PartCheck",
    "SyntheticSource",
    "WindowSource",
    "add_noise",
    "check_dataset",
    "data_root",
    "dataset_info",
    "find_packs",
    "load_dataset",
    "splits_of",
    "write_synth",
]

# Imported when asked for: listing a folder's photographs needs no data set.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "registry": [
            "DATASETS",
            "SPLITS",
            "data_root",
            "dataset_info",
            "find_packs",
            "load_dataset",
            "splits_of",
        ],
        "check": ["CheckReport", "PartCheck", "check_dataset"],
        "sources": ["DerivedSource", "NoisySource", "SyntheticSource", "WindowSource", "add_noise"],
        "synth": ["write_synth"],
    },
)
