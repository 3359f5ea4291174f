"""The CDD11 degradation model, procedural and reproducible (OneRestore, ECCV 2024)."""

from __future__ import annotations

from .maps import PROCEDURAL, DegradationConfig, FloatImage
from .model import CLEAR, COMPOSITIONS, KINDS, Degraded, degrade, drawn_severities, kinds_of

__all__ = [
    "CLEAR",
    "COMPOSITIONS",
    "KINDS",
    "PROCEDURAL",
    "DegradationConfig",
    "Degraded",
    "FloatImage",
    "degrade",
    "drawn_severities",
    "kinds_of",
]
