"""Which degradation dominates a sample, and whether its embedding lies there (Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfe_cache.degradations import KINDS
from mmfe_cache.guides.dominance import dominant, nearest_is_dominant
from mmfe_restore.figures.similarity import Matrix

DOMINANCE = 1.25
"""How many times the next severity the dominant one must be. Lower than in `mmfe guide evaluate`,
because CDD11's severities are all from 0.5 to 1."""

BALANCED = "balanced"
"""What a sample without a dominant degradation is called."""


def severities_of(names: Sequence[str], recorded: Mapping[str, Mapping[str, float]]) -> Matrix:
    """(N, 4) severities in the order of ``KINDS``, 0 where a degradation is absent."""
    rows = [[recorded[name].get(kind, 0.0) for kind in KINDS] for name in names]
    return np.array(rows, dtype=np.float64)


def dominant_names(names: Sequence[str], recorded: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Each sample's dominant degradation, or ``balanced``."""
    found = dominant(severities_of(names, recorded), DOMINANCE)
    return [BALANCED if kind < 0 else KINDS[kind] for kind in found]


def dominance_facts(
    answers: Matrix,
    names: Sequence[str],
    labels: Sequence[str],
    recorded: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Figure 1's claim in numbers.

    Args:
        answers: (N, D) E_Answer.
        names: N sample ids.
        labels: N compositions.
        recorded: severities by sample id.

    Returns:
        ``dominated``, the mixtures with a dominant part; ``nearest`` and ``nearest_cosine``, the
        share of them nearest to that part's centroid; None where there is none.
    """
    kinds = np.array(labels)
    if not all((kinds == kind).any() for kind in KINDS):
        return {"dominated": 0, "nearest": None, "nearest_cosine": None}
    centroids = np.stack([answers[kinds == kind].mean(axis=0) for kind in KINDS])
    mixed = np.array(["_" in label for label in labels])
    truth = severities_of(names, recorded)
    euclidean, cosine, count = nearest_is_dominant(
        answers[mixed], truth[mixed], centroids, ratio=DOMINANCE
    )
    return {
        "dominated": count,
        "nearest": euclidean if count else None,
        "nearest_cosine": cosine if count else None,
    }
