"""Data sets: every benchmark of the paper, in every layout people have; samples, nothing else."""

from __future__ import annotations

from .check import check_dataset
from .check_report import CheckReport, PartCheck
from .packed import find_packs
from .registry import (
    DATASETS,
    SPLITS,
    DatasetInfo,
    data_root,
    dataset_info,
    load_dataset,
    splits_of,
)
from .sources import DerivedSource, NoisySource, SyntheticSource, WindowSource, add_noise
from .synth import SynthReport, write_synth

__all__ = [
    "DATASETS",
    "SPLITS",
    "CheckReport",
    "DatasetInfo",
    "DerivedSource",
    "NoisySource",
    "PartCheck",
    "SynthReport",
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
