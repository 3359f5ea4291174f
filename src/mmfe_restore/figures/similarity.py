"""Cosine similarities, and how well two spaces agree about them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import MmfeError
from mmfe_cache.seeds import generator

Matrix = NDArray[np.float64]


def cosine(vectors: Matrix) -> Matrix:
    """(N, N) cosine similarities of (N, D) vectors, Sim of Eq. 7."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(norms, 1e-12)
    return unit @ unit.T


def alignment(first: Matrix, second: Matrix) -> float:
    """Pearson correlation of two similarity matrices, over all pairs of different samples.

    1 where the router keeps every relation of the embedding space; nan where a space tells
    nothing apart.
    """
    pairs = np.triu_indices(len(first), k=1)
    x, y = first[pairs], second[pairs]
    if x.size < 2 or x.std() < 1e-12 or y.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def plane(vectors: Matrix) -> tuple[Matrix, float]:
    """The two principal components of (N, D) vectors, and the share of variance they hold."""
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates = left[:, :2] * values[:2]
    if coordinates.shape[1] < 2:
        coordinates = np.pad(coordinates, ((0, 0), (0, 2 - coordinates.shape[1])))
    # The sign of a component is arbitrary: the largest entry is made positive.
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), [0, 1]])
    total = float((values**2).sum())
    share = float((values[:2] ** 2).sum() / total) if total > 0 else 0.0
    return coordinates * np.where(signs == 0, 1, signs), share


def neighbours(vectors: Matrix) -> Matrix:
    """(N, 2) t-SNE of (N, D) vectors, N at least 4: near each other there are near here.

    Begins at the principal components and draws nothing at random: the same every time.

    Raises:
        MmfeError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise MmfeError(
            "t-SNE needs scikit-learn, which is an extra",
            remedy="in mmfe's checkout: pip install -c constraints.txt '.[plots]'",
        ) from None
    start = plane(vectors)[0]
    start = 1e-4 * start / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    # scikit-learn takes an array too; its annotation does not say so.
    tsne = TSNE(perplexity=perplexity, init=start, random_state=0, n_jobs=1)  # pyright: ignore[reportArgumentType]
    return np.asarray(tsne.fit_transform(vectors), dtype=np.float64)


def spread_sample(labels: list[str], most: int) -> NDArray[np.int64]:
    """Positions of at most ``most`` samples, the same number of every class, in order."""
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    each = max(2, most // max(1, len(groups)))
    chosen: list[int] = []
    for label, members in groups.items():
        order = generator("figure", label).permutation(len(members))[:each]
        chosen += [members[int(i)] for i in order]
    return np.array(sorted(chosen), dtype=np.int64)
