"""The CDD11 degradation model, procedural and reproducible (OneRestore, ECCV 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from .compositions import (
        CLEAR as CLEAR,
        COMPOSITIONS as COMPOSITIONS,
        KIND_NAMES as KIND_NAMES,
        KINDS as KINDS,
        check_kinds as check_kinds,
        kinds_of as kinds_of,
        partial_class as partial_class,
        partial_classes as partial_classes,
        split_class as split_class,
    )
    from .maps import PROCEDURAL as PROCEDURAL, DegradationConfig as DegradationConfig
    from .model import degrade as degrade, drawn_severities as drawn_severities


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
