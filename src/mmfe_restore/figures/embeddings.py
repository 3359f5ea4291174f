"""Figures 1 and 5, left: how a guide arranges degraded images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfe_cache.errors import UsageError
from mmfe_restore.figures.canvas import (
    Drawing,
    Table,
    check_targets,
    in_order,
    in_our_style,
    new_figure,
    save,
    short,
)
from mmfe_restore.figures.scatter import name_classes, scatter
from mmfe_restore.figures.similarity import Matrix, cosine, plane, spread_sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from mmfe_cache.store import CacheReader


def choose_samples(cache: CacheReader, most: int) -> tuple[NDArray[np.int64], list[str]]:
    """Places of at most ``most`` samples that the cache holds, evenly by class; and their classes.

    Samples that were skipped when the cache was built are left out.
    """
    gone = set(cache.skipped)
    held = [place for place, name in enumerate(cache.ids) if name not in gone]
    chosen = spread_sample([label_of(cache.ids[place]) for place in held], most)
    places = np.array(held, dtype=np.int64)[chosen]
    return places, [label_of(cache.ids[place]) for place in places]


def label_of(sample_id: str) -> str:
    """A sample's class: what stands before the slash of its id."""
    return sample_id.rsplit("/", 1)[0]


@in_our_style
def plot_embeddings(
    cache: CacheReader, view: str, out: Path, *, most: int = 1100, force: bool = False
) -> Drawing:
    """Draw E_Answer of a cache on its two principal components, and the classes' similarities.

    Args:
        cache: an open cache.
        view: which of its views.
        out: folder for embeddings.png, .svg and .csv.
        most: samples to draw, the same number of every class.
        force: write over figures that are there.

    Raises:
        CacheError: the view is not there.
        UsageError: the figure exists.
    """
    check_targets(out, ["embeddings"], force=force)
    chosen, shown = choose_samples(cache, most)
    order = in_order(shown)
    if len(order) < 2:
        raise UsageError("this figure compares classes", got=f"{len(order)} class in {cache.path}")
    answers = answers_of(cache, chosen, view)
    coordinates, share = plane(answers)
    means = class_similarities(answers, shown, order)

    figure = new_figure(3.3)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    scatter(left, coordinates, shown)
    left.set_title(f"E_Answer of {cache.guide}, {view}", loc="left")
    left.set_xlabel(f"principal component 1 (both: {share:.0%} of the variance)")
    left.set_ylabel("principal component 2")
    draw_matrix(right, means, order, "mean cosine similarity of classes")
    name_classes(left, coordinates, shown)
    rows = tuple(
        (cache.ids[i], label, *map(float, point))
        for i, label, point in zip(chosen, shown, coordinates, strict=True)
    )
    files = save(figure, Table(("id", "label", "pc1", "pc2"), rows), out, "embeddings")
    return Drawing(
        files, {"guide": cache.guide, "view": view, "samples": len(chosen), "variance": share}
    )


def answers_of(cache: CacheReader, chosen: Any, view: str) -> Matrix:
    """(N, D) E_Answer of the chosen samples."""
    answer = cache.gather(chosen, view, arrays=("answer",)).answer
    assert answer is not None
    return answer.double().numpy()


def class_similarities(vectors: Matrix, labels: list[str], order: list[str]) -> Matrix:
    """(K, K) mean cosine similarity of each two classes; no sample is paired with itself.

    nan for a class of one sample with itself.
    """
    similarity = cosine(vectors)
    np.fill_diagonal(similarity, 0.0)
    member = np.array([[label == name for label in labels] for name in order], dtype=np.float64)
    pairs = member @ (1.0 - np.eye(len(labels))) @ member.T
    with np.errstate(invalid="ignore"):
        return (member @ similarity @ member.T) / pairs


def draw_matrix(axes: Axes, matrix: Matrix, order: list[str], title: str) -> None:
    """Draw class similarities, with the value in each cell."""
    low = float(np.nanmin(matrix))
    axes.imshow(matrix, cmap="cividis", vmin=low, vmax=1.0)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        ink = "black" if value > (low + 1) / 2 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=5.2, color=ink)
    names = [short(label) for label in order]
    axes.set_xticks(range(len(order)), names, rotation=60, fontsize=6)
    axes.set_yticks(range(len(order)), names, fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left")
