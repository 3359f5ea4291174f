"""Samples in a plane: their cosine similarities, a projection, and every class named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfe_cache.errors import MmfeError
from mmfe_cache.guides.scene.evaluation import unit_rows
from mmfe_cache.seeds import generator
from mmfe_restore.figures.canvas import abbreviated, class_styles, in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox


Matrix = NDArray[np.float64]


def cosine_similarity(vectors: Matrix) -> Matrix:
    """(N, N) cosine similarities of (N, D) vectors, Sim of Eq. 7."""
    unit = unit_rows(vectors)
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


def pca(vectors: Matrix) -> tuple[Matrix, float]:
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


def tsne(vectors: Matrix) -> Matrix:
    """(N, 2) t-SNE of (N, D) vectors, N at least 4: near each other there are near here.

    Begins at the principal components and draws nothing at random: the same every time. Equal
    vectors, of which a discrete guide has many, are one: t-SNE by itself would drive them apart.

    Raises:
        MmfeError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise MmfeError(
            "t-SNE needs scikit-learn, which is an extra",
            remedy="in mmfe's checkout: pip install -c constraints.txt -e '.[plots]'",
        ) from None
    distinct, first, place = np.unique(vectors, axis=0, return_index=True, return_inverse=True)
    if len(distinct) < len(vectors):
        # In the order in which they first appear; three of them lie in a plane as they are.
        rank = np.argsort(np.argsort(first))
        once = vectors[np.sort(first)]
        return (tsne(once) if len(once) > 3 else pca(once)[0])[rank[place.ravel()]]
    start = pca(vectors)[0]
    start = 1e-4 * start / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    # scikit-learn takes an array too; its annotation does not say so.
    embedding = TSNE(perplexity=perplexity, init=start, random_state=0, n_jobs=1)  # pyright: ignore[reportArgumentType]
    return np.asarray(embedding.fit_transform(vectors), dtype=np.float64)


def spread_sample(labels: list[str], most: int) -> NDArray[np.int64]:
    """Positions of ``most`` samples, or two of each class if that is more, in order.

    The same number of every class, as far as it has so many.
    """
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    each = max(2, most // max(1, len(groups)))
    chosen: list[int] = []
    for label, members in groups.items():
        order = generator("figure", label).permutation(len(members))[:each]
        chosen += [members[int(i)] for i in order]
    return np.array(sorted(chosen), dtype=np.int64)


_RADII = (5, 9, 14, 20, 27, 35, 44)
"""Points from a class's middle to its name; the first that is free is taken."""

_REACH = 2.2
"""Points from a marker's middle to its edge."""

_DIRECTIONS = tuple((np.cos(a), np.sin(a)) for a in np.pi / 12 * np.arange(1, 25, 2))


def scatter(axes: Axes, coordinates: Matrix, labels: Sequence[str]) -> None:
    """Draw samples in a plane, a colour and a marker per class.

    Args:
        axes: without units: the ticks are taken away.
        coordinates: (N, 2).
        labels: N classes.
    """
    for label, style in class_styles(labels).items():
        # White edges part markers that touch; a marker of lines alone has none.
        edge = {} if style.marker in "1234+x" else {"edgecolors": "white"}
        axes.scatter(
            *coordinates[np.array(labels) == label].T,
            s=18,
            color=style.colour,
            marker=style.marker,
            label=label,
            linewidths=0.3 if edge else 0.9,
            alpha=0.85,
            **edge,
        )
    axes.margins(0.08)
    axes.set_xticks([])
    axes.set_yticks([])


def name_classes(axes: Axes, coordinates: Matrix, labels: Sequence[str]) -> None:
    """Write each class's name near its middle, no name over another or out of the axes.

    To be called when everything else is drawn: the layout decides where there is room. A name
    that finds none near stands farther off, with a line to its class. One that must stand on
    markers lets them shine through.
    """
    from matplotlib.patheffects import withStroke

    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    inside = axes.get_window_extent()
    points = axes.transData.transform(coordinates)
    taken: list[Bbox] = []
    colours = {label: style.colour for label, style in class_styles(labels).items()}
    for label in in_order(labels):
        mine = np.array(labels) == label
        middle = np.median(coordinates[mine], axis=0)
        anchor = axes.transData.transform(middle)
        text = axes.annotate(
            abbreviated(label),
            (float(middle[0]), float(middle[1])),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=6.5,
            weight="bold",
            color=tuple(0.6 * c for c in colours[label]),
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.4", "shrinkA": 0},
            zorder=4,
        )
        text.set_in_layout(False)
        size = text.get_window_extent()
        radius, offset, box = _place(
            anchor, (size.width, size.height), taken, inside, points, scale
        )
        text.set_position(offset)
        if text.arrow_patch is not None:
            text.arrow_patch.set_visible(radius > _RADII[1])
            text.arrow_patch.set_zorder(0.5)
        if _covered(box, points, scale).any():
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white", alpha=0.7)])
        taken.append(box)


def _covered(box: Bbox, points: Matrix, scale: float) -> NDArray[np.bool_]:
    """(N,) whether a marker at a point, in pixels, is touched by a box."""
    reach = _REACH * scale
    return np.all((points + reach > box.min) & (points - reach < box.max), axis=1)


def _place(
    anchor: NDArray[np.float64],
    size: tuple[float, float],
    taken: Sequence[Bbox],
    inside: Bbox,
    points: Matrix,
    scale: float,
) -> tuple[float, tuple[float, float], Bbox]:
    """The radius and offset in points, and the box in pixels, of the cheapest place for a name."""
    from matplotlib.transforms import Bbox

    width, height = size
    found: list[tuple[float, float, tuple[float, float], Bbox]] = []
    for radius in _RADII:
        for x, y in _DIRECTIONS:
            # The name's nearest edge, not its middle, stands at the radius.
            offset = (x * (radius + width / scale / 2), y * (radius + height / scale / 2))
            centre = anchor + scale * np.array(offset)
            box = Bbox.from_bounds(centre[0] - width / 2, centre[1] - height / 2, width, height)
            outside = not (
                inside.x0 <= box.x0
                and box.x1 <= inside.x1
                and inside.y0 <= box.y0
                and box.y1 <= inside.y1
            )
            over = sum(box.overlaps(other) for other in taken)
            hidden = _covered(box, points, scale)
            # One marker under a name costs more than the longest line to a free place.
            cost = 100 * (outside + over) + 3 * hidden.any() + 20 * hidden.mean() + 0.05 * radius
            found.append((cost, radius, offset, box))
    return min(found, key=lambda place: place[0])[1:]
