"""The CDD11 degradation model, procedural and reproducible (OneRestore, ECCV 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from .compositions import (
        CLEAR,
        COMPOSITIONS,
        KIND_NAMES,
        KINDS,
        check_kinds,
        kinds_of,
        partial_class,
        partial_classes,
        split_class,
    )
    from .maps import PROCEDURAL, DegradationConfig
    from .model import degrade, drawn_severities

__all__ = [
    "CLEAR",
    "COMPOSITIONS",
    "KINDS",
    "KIND_NAMES",
    "PROCEDURAL",
    "DegradationConfig",
    "check_kinds",
    "degrade",
    "drawn_severities",
    "kinds_of",
    "partial_class",
    "partial_classes",
    "split_class",
]

# Imported when asked for: naming degradations needs no SciPy, which applying them does.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "compositions": [
            "CLEAR",
            "COMPOSITIONS",
            "KINDS",
            "KIND_NAMES",
            "check_kinds",
            "kinds_of",
            "partial_class",
            "partial_classes",
            "split_class",
        ],
        "maps": ["PROCEDURAL", "DegradationConfig"],
        "model": ["degrade", "drawn_severities"],
    },
)
