"""Precomputing embeddings: runs a guide over a split and writes what its cache lacks."""

from mmfe_cache.precompute.build import BuildReport, build_cache
from mmfe_cache.precompute.distributed import Ranks

__all__ = ["BuildReport", "Ranks", "build_cache"]
