"""The CDD11 degradation model, procedural and reproducible (OneRestore, ECCV 2024)."""

from __future__ import annotations

from .draw import FloatImage
from .model import COMPOSITIONS, KINDS, Degraded, degrade, drawn_severities, kinds_of

__all__ = [
    "COMPOSITIONS",
    "KINDS",
    "Degraded",
    "FloatImage",
    "degrade",
    "drawn_severities",
    "kinds_of",
]
