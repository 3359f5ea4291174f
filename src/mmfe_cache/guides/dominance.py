"""Figure 1's claim as a number: do mixtures lie nearest to their dominant degradation?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dominant(severities_NK: Array, ratio: float) -> NDArray[np.int64]:
    """(N,) the strongest of K degradations; -1 where the next is nearer than a ``ratio`` to it.

    Args:
        severities_NK: in [0, 1], 0 where a degradation is absent; K at least 2.
        ratio: how many times the next severity the strongest must be.
    """
    ordered = np.sort(severities_NK, axis=1)
    clear = (ordered[:, -1] >= ratio * ordered[:, -2]) & (ordered[:, -1] > 0)
    return np.where(clear, severities_NK.argmax(axis=1), -1)


def nearest_is_dominant(
    answer_ND: Array, severities_NK: Array, centroids_KD: Array, *, ratio: float
) -> tuple[float, float, int]:
    """How often the nearest single-degradation centroid is the dominant one's (paper, Figure 1).

    Args:
        answer_ND: E_Answer of mixtures.
        severities_NK: their severities.
        centroids_KD: mean E_Answer of the pictures that suffer from one degradation alone.
        ratio: as for `dominant`; other mixtures are left out.

    Returns:
        The share by Euclidean distance, the share by cosine similarity, and the number of
        mixtures with a clearly dominant part (NaN, NaN, 0 where there is none).
    """
    strongest = dominant(severities_NK, ratio)
    chosen = strongest >= 0
    if not chosen.any():
        return float("nan"), float("nan"), 0
    answer, strongest = answer_ND[chosen], strongest[chosen]
    distance = np.linalg.norm(answer[:, None] - centroids_KD, axis=2)
    similarity = _unit(answer) @ _unit(centroids_KD).T
    by_distance = distance.argmin(axis=1) == strongest
    by_cosine = similarity.argmax(axis=1) == strongest
    return float(by_distance.mean()), float(by_cosine.mean()), len(strongest)


def _unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
