"""The paper's figures from caches, checkpoints and reports: PNG, SVG and the data behind each."""

from __future__ import annotations

from mmfe_restore.figures.embeddings import plot_embeddings
from mmfe_restore.figures.embeddings_beside import plot_beside
from mmfe_restore.figures.error_maps import Method, method_of, named_path, plot_errors
from mmfe_restore.figures.expert_maps import Subject, plot_experts
from mmfe_restore.figures.routing import plot_routing

__all__ = [
    "Method",
    "Subject",
    "method_of",
    "named_path",
    "plot_beside",
    "plot_embeddings",
    "plot_errors",
    "plot_experts",
    "plot_routing",
]
