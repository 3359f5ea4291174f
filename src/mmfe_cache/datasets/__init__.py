"""Data sets: every benchmark of the paper, in every layout people have; samples, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from .check import (
        CheckReport as CheckReport,
        PartCheck as PartCheck,
        check_dataset as check_dataset,
    )
    from .registry import (
        DATASETS as DATASETS,
        SPLITS as SPLITS,
        data_root as data_root,
        dataset_info as dataset_info,
        find_packs as find_packs,
        load_dataset as load_dataset,
        splits_of as splits_of,
    )
    from .sources import (
        DerivedSource as DerivedSource,
        NoisySource as NoisySource,
        SyntheticSource as SyntheticSource,
        WindowSource as WindowSource,
        add_noise as add_noise,
    )
    from .synth import write_synth as write_synth


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
