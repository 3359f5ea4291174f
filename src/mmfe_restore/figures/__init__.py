"""The paper's figures from caches, checkpoints and reports: PNG, SVG and the data behind each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfe_cache.lazy import lazy_names

if TYPE_CHECKING:
    from mmfe_restore.figures.embeddings import plot_embeddings as plot_embeddings
    from mmfe_restore.figures.embeddings_compared import plot_compared as plot_compared
    from mmfe_restore.figures.error_maps import (
        Method as Method,
        method_of as method_of,
        named_path as named_path,
        plot_errors as plot_errors,
    )
    from mmfe_restore.figures.expert_maps import Subject as Subject, plot_experts as plot_experts
    from mmfe_restore.figures.routing import plot_routing as plot_routing


# Imported when asked for: a wrong path is said before torch is imported.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "embeddings": ["plot_embeddings"],
        "embeddings_compared": ["plot_compared"],
        "error_maps": ["Method", "method_of", "named_path", "plot_errors"],
        "expert_maps": ["Subject", "plot_experts"],
        "routing": ["plot_routing"],
    },
)
