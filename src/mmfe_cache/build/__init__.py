"""The build: runs a guide over a split and writes what is missing of its cache."""

from mmfe_cache.build.builder import BuildReport, build_cache
from mmfe_cache.build.ranks import Ranks

__all__ = ["BuildReport", "Ranks", "build_cache"]
