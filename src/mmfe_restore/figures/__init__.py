"""The paper's figures from caches, checkpoints and reports: PNG, SVG and the data behind each."""

from __future__ import annotations

from mmfe_restore.figures.embeddings import plot_embeddings
from mmfe_restore.figures.errors import plot_errors
from mmfe_restore.figures.experts import plot_experts
from mmfe_restore.figures.routing import plot_routing

__all__ = ["plot_embeddings", "plot_errors", "plot_experts", "plot_routing"]
