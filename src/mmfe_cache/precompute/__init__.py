"""Precomputing embeddings: runs a guide over a split and writes what its cache lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_cache.precompute.build import build_cache as build_cache


# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "build": ["build_cache"],
    },
)
